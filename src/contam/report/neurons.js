// The table of neurons: it can be filtered and sorted, and the histograms follow.
(() => {
  const table = document.querySelector(".neurons");
  if (!table) return;
  const heads = [...table.tHead.rows[0].cells];
  const names = heads.map((head) => head.dataset.column);
  const all = contam.data.neurons;
  const at = Object.fromEntries(names.map((name, k) => [name, k]));
  const pane = table.parentElement;
  const body = table.tBodies[0];
  let shown = all;

  const fixed = (value) =>
    value === null ? "–" : value.toFixed(3).replace(/^-(?=.*[1-9])/, "−").replace(/^-/, "");
  const text = (row, k) => (k < 3 ? String(row[k]) : fixed(row[k]));
  // Every row is made once; filters and orders only move it.
  const made = new Map(all.map((row) => {
    const line = document.createElement("tr");
    row.forEach((_, k) => {
      const cell = document.createElement(k ? "td" : "th");
      if (!k) cell.scope = "row";
      if (heads[k].classList.contains("number")) cell.className = "number";
      cell.textContent = text(row, k);
      if (k < 3) cell.title = cell.textContent;
      line.append(cell);
    });
    return [row, line];
  }));

  // Which neurons, in which order.
  const bar = document.querySelector("#neurons .choose");
  const favorite = bar.querySelector(".favorite");
  const search = bar.querySelector(".text");
  const status = bar.querySelector(".count");
  const favorites = [...favorite.options].map((option) => option.text);
  const sorted = { column: null, order: "none" };

  function wanted() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const layer = layers.chosen === null ? null : layers.names[layers.chosen];
    const label = favorite.selectedIndex ? favorites[favorite.selectedIndex] : null;
    return (row) =>
      (layer === null || row[at.layer] === layer) &&
      (label === null || row[at.favorite] === label) &&
      words.every((word) =>
        word.replace(/^#/, "") === String(row[at.index]) ||
        row[at.layer].toLowerCase().includes(word) ||
        row[at.favorite].toLowerCase().includes(word));
  }

  function apply() {
    shown = all.filter(wanted());
    if (sorted.order !== "none") {
      const k = at[sorted.column];
      const sign = sorted.order === "ascending" ? 1 : -1;
      const order = (a, b) => (typeof a === "string" ? (a < b ? -1 : Number(a > b)) : a - b);
      // Missing numbers come last in both orders.
      const known = shown.filter((row) => row[k] !== null).sort((a, b) => sign * order(a[k], b[k]));
      shown = [...known, ...shown.filter((row) => row[k] === null)];
    }
    body.replaceChildren(...shown.map((row) => made.get(row)));
    status.textContent = `${shown.length.toLocaleString("en")} of ${all.length.toLocaleString("en")}`;
    pane.scrollTop = 0;
    clearTimeout(settled);
    settled = setTimeout(histograms, 120);
  }

  // Histograms of what is shown.
  const whole = Object.fromEntries(Object.keys(contam.data.histograms).map((anchor) =>
    [anchor, contam.data.charts[anchor]?.data.values]));
  let settled = 0;
  function histograms() {
    for (const [anchor, { edges, columns: series }] of Object.entries(contam.data.histograms)) {
      const chart = contam.data.charts[anchor];
      if (!chart) continue;
      const last = edges.length - 2;
      const width = (edges[last + 1] - edges[0]) / (last + 1);
      chart.data.values = shown.length === all.length ? whole[anchor] : Object.entries(series).flatMap(([name, column]) => {
        const bins = new Uint32Array(last + 1);
        for (const row of shown) {
          const value = row[at[column]];
          if (value !== null) bins[Math.min(Math.max(Math.floor((value - edges[0]) / width), 0), last)]++;
        }
        return edges.map((x, k) => ({ series: name, x, y: bins[Math.min(k, last)] / Math.max(shown.length, 1) }));
      });
      contam.redraw(document.getElementById(anchor));
    }
  }

  const next = { none: "descending", descending: "ascending", ascending: "none" };
  heads.forEach((head) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => {
      sorted.order = next[head.getAttribute("aria-sort")];
      sorted.column = head.dataset.column;
      for (const other of heads) other.setAttribute("aria-sort", other === head ? sorted.order : "none");
      apply();
    });
    head.append(button);
    head.setAttribute("aria-sort", "none");
  });
  favorite.addEventListener("change", apply);
  let typed = 0;
  search.addEventListener("input", () => {
    clearTimeout(typed);
    typed = setTimeout(apply, 150);
  });
  layers.follow(apply);

  contam.downloadable(document.querySelector("#neurons .tools"), "neurons",
    () => [names, ...shown], "Download these neurons as CSV");
  apply();
})();
