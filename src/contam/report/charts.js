// What every page needs: its charts, its theme, and CSV downloads. Everything else is plain HTML.
const contam = (() => {
  const root = document.documentElement;
  const data = JSON.parse(document.getElementById("data").textContent);
  const { charts, numbers, themes } = data;

  // Charts, by the element that holds them. They are redrawn when the theme or the width changes.
  const views = new Map();

  // A chart's legend has as many columns as fit on a phone; use more where the page is wider.
  function widenLegends(spec, width) {
    for (const view of [spec, ...(spec.layer ?? [])]) {
      // A legend starts at the left edge of the plot, to the right of the names on the y axis.
      const available = width - (view.encoding?.y?.type === "nominal" ? 190 : 50);
      for (const { legend, scale } of Object.values(view.encoding ?? {})) {
        if (!legend || legend.type === "gradient") continue;
        const names = legend.values ?? scale.domain;
        const longest = Math.max(...names.map((name) => name.length));
        legend.labelLimit = Math.min(legend.labelLimit, width - 70);
        legend.columns = Math.max(1, Math.min(names.length, Math.floor(available / (6.4 * longest + 46))));
      }
    }
  }

  async function draw(place, theme) {
    const spec = structuredClone(charts[place.id]);
    const least = Number(place.dataset.least);
    if (least) place.style.minWidth = `${least}px`;
    widenLegends(spec, place.clientWidth);
    try {
      const drawn = await vegaEmbed(place, spec, {
        mode: "vega-lite",
        renderer: "svg",
        actions: false,
        ast: true, // expressions are interpreted, because the page forbids eval
        config: structuredClone(themes[theme]),
        defaultStyle: false,
        tooltip: { disableDefaultStyle: true },
      });
      views.get(place)?.finalize();
      views.set(place, drawn);
      place.classList.add("drawn");
      place.dataset.theme = theme;
      // Screen readers read the description of the element, not the parts of the picture.
      place.querySelector("svg").setAttribute("aria-hidden", "true");
      place.dispatchEvent(new Event("drawn"));
    } catch (error) {
      place.classList.add("failed");
      place.innerHTML = "";
      const text = document.createElement("p");
      text.className = "instead";
      text.textContent = `${place.getAttribute("aria-label")} (The chart could not be drawn: ${error.message})`;
      place.append(text);
    }
  }

  // Charts near the window are drawn first. The others follow while the browser is idle, so that a
  // capture of the whole page has all of them.
  let queue = Promise.resolve();
  const enqueue = (place) => (queue = queue.then(() => draw(place, root.dataset.theme)));
  const places = [...document.querySelectorAll(".chart")];
  const pending = new Set(places);
  const drawPending = (place) => (pending.delete(place) ? enqueue(place) : queue);
  const observer = new IntersectionObserver(
    (entries) => {
      for (const { isIntersecting, target } of entries) if (isIntersecting) drawPending(target);
    },
    { rootMargin: "800px" },
  );
  for (const place of places) observer.observe(place);
  const whenIdle = window.requestIdleCallback ?? ((task) => setTimeout(task, 50));
  function drawNext() {
    // A hidden chart has no width yet; the observer draws it when it is shown.
    const next = [...pending].find((place) => place.clientWidth > 0);
    if (next) drawPending(next).then(() => whenIdle(drawNext));
  }
  addEventListener("load", () => whenIdle(drawNext));
  // Pictures inside a chart load asynchronously. These charts are drawn first, because the page's
  // load event waits for their pictures and a capture waits for that event.
  const hasPictures = (spec) => JSON.stringify(spec).includes('"type":"image"');
  for (const place of places) if (place.clientWidth > 0 && hasPictures(charts[place.id])) drawPending(place);

  let width = innerWidth;
  let settled = 0;
  addEventListener("resize", () => {
    if (innerWidth === width) return; // only a phone's address bar appeared or disappeared
    width = innerWidth;
    clearTimeout(settled);
    settled = setTimeout(() => views.forEach((_, place) => enqueue(place)), 150);
  });

  // A print shows every chart, in the colors of the light theme.
  const drawAll = (theme) => {
    observer.disconnect();
    pending.clear();
    for (const place of places) if (place.dataset.theme !== theme) draw(place, theme);
  };
  addEventListener("beforeprint", () => drawAll("light"));
  addEventListener("afterprint", () => drawAll(root.dataset.theme));

  // The theme.
  const toggle = document.getElementById("theme");
  const label = () => {
    toggle.textContent = root.dataset.theme === "dark" ? "Switch to light mode" : "Switch to dark mode";
  };
  function change(theme) {
    root.dataset.theme = theme;
    label();
    for (const place of views.keys()) enqueue(place);
  }
  toggle.addEventListener("click", () => {
    change(root.dataset.theme === "dark" ? "light" : "dark");
    try { localStorage.setItem("contam-theme", root.dataset.theme); } catch { /* storage may be forbidden */ }
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", (system) => {
    let chosen = null;
    try { chosen = localStorage.getItem("contam-theme"); } catch { /* storage may be forbidden */ }
    if (!chosen) change(system.matches ? "dark" : "light");
  });
  label();
  toggle.removeAttribute("aria-pressed");
  toggle.hidden = false;

  // Numbers as a CSV file.
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
  function downloadable(tools, name, rowsOf, text = "Download as CSV") {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = text;
    button.addEventListener("click", () => download(`${name}.csv`, rowsOf()));
    tools.append(button);
  }
  for (const details of document.querySelectorAll(".numbers")) {
    const name = details.dataset.figure;
    if (!numbers[name]) continue;
    const { columns, rows } = numbers[name];
    downloadable(details.querySelector(".tools"), name, () => [columns, ...rows]);
  }

  // Redraw a chart whose numbers changed; one that is not drawn yet will use the new numbers.
  const redraw = (place) => views.has(place) && enqueue(place);
  return { data, views, redraw, downloadable };
})();
