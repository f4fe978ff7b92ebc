// What every page has: its charts, its theme, and numbers to download. Everything else is plain HTML.
const contam = (() => {
  const root = document.documentElement;
  const data = JSON.parse(document.getElementById("data").textContent);
  const { charts, numbers, themes } = data;

  // Charts: drawn shortly before they come into view, and drawn anew when the theme changes.
  const views = new Map();

  // Legends come with the columns that a phone has room for; here there may be room for more.
  function spread(spec, width) {
    for (const view of [spec, ...(spec.layer ?? [])]) {
      // A legend begins where the plot does, and names along the y axis push that to the right.
      const room = width - (view.encoding?.y?.type === "nominal" ? 190 : 50);
      for (const { legend, scale } of Object.values(view.encoding ?? {})) {
        if (!legend || legend.type === "gradient") continue;
        const names = legend.values ?? scale.domain;
        const longest = Math.max(...names.map((name) => name.length));
        legend.labelLimit = Math.min(legend.labelLimit, width - 70);
        legend.columns = Math.max(1, Math.min(names.length, Math.floor(room / (6.4 * longest + 46))));
      }
    }
  }

  async function draw(place, theme) {
    const spec = structuredClone(charts[place.id]);
    const least = Number(place.dataset.least);
    if (least) place.style.minWidth = `${least}px`;
    spread(spec, place.clientWidth);
    try {
      const drawn = await vegaEmbed(place, spec, {
        mode: "vega-lite",
        renderer: "svg",
        actions: false,
        ast: true, // expressions are interpreted, so the page forbids eval
        config: structuredClone(themes[theme]),
        defaultStyle: false,
        tooltip: { disableDefaultStyle: true },
      });
      views.get(place)?.finalize();
      views.set(place, drawn);
      place.classList.add("drawn");
      place.dataset.theme = theme;
      // The text on the place says what the picture shows; the picture itself stays silent.
      place.querySelector("svg").setAttribute("aria-hidden", "true");
      place.dispatchEvent(new Event("drawn"));
    } catch (fault) {
      place.classList.add("failed");
      place.innerHTML = "";
      const text = document.createElement("p");
      text.className = "instead";
      text.textContent = `${place.getAttribute("aria-label")} (The chart could not be drawn: ${fault.message})`;
      place.append(text);
    }
  }

  let waiting = Promise.resolve();
  const soon = (place) => (waiting = waiting.then(() => draw(place, root.dataset.theme)));
  const places = [...document.querySelectorAll(".chart")];
  const watch = new IntersectionObserver(
    (seen) => {
      for (const { isIntersecting, target } of seen) {
        if (!isIntersecting) continue;
        watch.unobserve(target);
        soon(target);
      }
    },
    { rootMargin: "800px" },
  );
  for (const place of places) watch.observe(place);

  let width = innerWidth;
  let settled = 0;
  addEventListener("resize", () => {
    if (innerWidth === width) return; // a phone's address bar came or went
    width = innerWidth;
    clearTimeout(settled);
    settled = setTimeout(() => views.forEach((_, place) => soon(place)), 150);
  });

  // Paper is white and shows everything.
  const drawAll = (theme) => {
    watch.disconnect();
    for (const place of places) if (place.dataset.theme !== theme) draw(place, theme);
  };
  addEventListener("beforeprint", () => drawAll("light"));
  addEventListener("afterprint", () => drawAll(root.dataset.theme));

  // The theme.
  const toggle = document.getElementById("theme");
  const say = () => {
    toggle.setAttribute("aria-pressed", String(root.dataset.theme === "dark"));
  };
  function change(theme) {
    root.dataset.theme = theme;
    say();
    for (const place of views.keys()) soon(place);
  }
  toggle.addEventListener("click", () => {
    change(root.dataset.theme === "dark" ? "light" : "dark");
    try { localStorage.setItem("contam-theme", root.dataset.theme); } catch { /* not remembered */ }
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", (system) => {
    let chosen = null;
    try { chosen = localStorage.getItem("contam-theme"); } catch { /* nothing was chosen */ }
    if (!chosen) change(system.matches ? "dark" : "light");
  });
  say();
  toggle.hidden = false;

  // Numbers as a file.
  const quoted = (value) => {
    const text = value === null ? "" : typeof value === "object" ? JSON.stringify(value) : String(value);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  function download(name, rows) {
    const text = rows.map((row) => row.map(quoted).join(",")).join("\r\n") + "\r\n";
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }
  function downloadable(tools, name, rowsOf, says = "Download as CSV") {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = says;
    button.addEventListener("click", () => download(`${name}.csv`, rowsOf()));
    tools.append(button);
  }
  for (const details of document.querySelectorAll(".numbers")) {
    const name = details.dataset.figure;
    if (!numbers[name]) continue;
    const { columns, rows } = numbers[name];
    downloadable(details.querySelector(".tools"), name, () => [columns, ...rows]);
  }

  // A chart whose numbers changed is drawn anew if it had been drawn, and else when it comes into view.
  const redraw = (place) => views.has(place) && soon(place);
  return { data, views, redraw, downloadable };
})();
