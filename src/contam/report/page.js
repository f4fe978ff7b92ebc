// Charts, the theme, the filter and the order of the claims, and the downloads. Everything else is plain HTML.
(() => {
  const root = document.documentElement;
  const { charts, numbers, themes } = JSON.parse(document.getElementById("data").textContent);

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

  // The filter of the claims.
  let filter = () => {};
  const filters = document.querySelector(".filters");
  if (filters) {
    const rows = [...document.querySelectorAll(".claim")];
    const buttons = [...filters.querySelectorAll("button")];
    const select = filters.querySelector("select");
    const status = filters.querySelector("[role=status]");
    const apply = () => {
      const verdict = buttons.find((each) => each.getAttribute("aria-pressed") === "true").dataset.verdict;
      const run = select?.value ?? "";
      for (const row of rows)
        row.hidden = (verdict && row.dataset.verdict !== verdict) || (run && row.dataset.run !== run);
      for (const group of document.querySelectorAll(".claims tbody"))
        group.hidden = !group.querySelector(".claim:not([hidden])");
      const shown = rows.filter((row) => !row.hidden).length;
      status.textContent = shown === rows.length ? "" : `${shown} of ${rows.length} shown`;
    };
    for (const button of buttons)
      button.addEventListener("click", () => {
        for (const each of buttons) each.setAttribute("aria-pressed", String(each === button));
        apply();
      });
    select?.addEventListener("change", apply);
    filters.hidden = false;
    filter = apply;
    // A link to a claim shows it, whatever the filter says.
    addEventListener("hashchange", () => {
      const row = document.getElementById(location.hash.slice(1));
      if (!row?.classList.contains("claim") || !row.hidden) return;
      if (select) select.value = "";
      buttons[0].click();
      row.scrollIntoView();
    });
  }

  // The order of the claims: a column's first press sorts all of them, the second turns them round,
  // and the third puts them back under their experiments.
  const table = document.querySelector(".claims");
  if (table) {
    const rows = [...table.querySelectorAll(".claim")];
    const homes = rows.map((row) => row.parentElement);
    const heads = [...table.tHead.rows[0].cells];
    const next = { none: "ascending", ascending: "descending", descending: "none" };
    const key = (row, column) => {
      const { value } = row.cells[column].dataset;
      if (value === undefined) return row.cells[column].textContent.trim();
      return value === "" ? null : Number(value);
    };
    const compare = (a, b) => (typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true }));
    const arrange = (column, order) => {
      for (const head of heads) head.setAttribute("aria-sort", head === heads[column] ? order : "none");
      table.classList.toggle("sorted", order !== "none");
      if (order === "none") rows.forEach((row, i) => homes[i].append(row));
      else {
        const known = rows.filter((row) => key(row, column) !== null);
        known.sort((a, b) => compare(key(a, column), key(b, column)));
        if (order === "descending") known.reverse();
        // What has no number comes last, whichever way the others go.
        table.tBodies[0].append(...known, ...rows.filter((row) => !known.includes(row)));
      }
      filter();
    };
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      button.addEventListener("click", () => arrange(column, next[head.getAttribute("aria-sort")]));
      head.append(button);
      head.setAttribute("aria-sort", "none");
    });
  }

  // The numbers of a figure as a file.
  const quoted = (value) => {
    const text = value === null ? "" : typeof value === "object" ? JSON.stringify(value) : String(value);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  for (const details of document.querySelectorAll(".numbers")) {
    const name = details.dataset.figure;
    const { columns, rows } = numbers[name];
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Download as CSV";
    button.addEventListener("click", () => {
      const text = [columns, ...rows].map((row) => row.map(quoted).join(",")).join("\r\n") + "\r\n";
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
      link.download = `${name}.csv`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    });
    details.querySelector(".tools").append(button);
  }
})();
