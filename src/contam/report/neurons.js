// The table of neurons: of many thousand rows, those in view are there. Histograms follow its filter.
(() => {
  const table = document.querySelector(".neurons");
  if (!table) return;
  const { letters, count, favorites, columns: texts } = contam.data.neurons;

  // Columns, from the letters that they are packed in.
  const digit = new Uint8Array(128);
  [...letters].forEach((letter, i) => (digit[letter.charCodeAt(0)] = i));
  function unpacked({ text, letters: n, start, step }) {
    const none = letters.length ** n - 1;
    const values = new Float64Array(count);
    for (let i = 0, at = 0; i < count; i++) {
      let code = 0;
      for (let k = 0, weight = 1; k < n; k++, weight *= letters.length) code += digit[text.charCodeAt(at++)] * weight;
      values[i] = code === none ? NaN : start + step * code;
    }
    return values;
  }
  const columns = Object.fromEntries(Object.entries(texts).map(([name, column]) => [name, unpacked(column)]));
  const say = {
    layer: (i) => layers.names[columns.layer[i]],
    index: (i) => String(columns.index[i]),
    favorite: (i) => favorites[columns.favorite[i]],
  };
  const fixed = (value) => (Number.isNaN(value) ? "–" : value.toFixed(3).replace(/^-(?=.*[1-9])/, "−").replace(/^-/, ""));
  const heads = [...table.tHead.rows[0].cells];
  const names = heads.map((head) => head.dataset.column);

  // Rows: two spaces stand for all that is above and below.
  const pane = table.parentElement;
  const body = table.tBodies[0];
  const space = () => {
    const row = document.createElement("tr");
    row.className = "space";
    row.setAttribute("aria-hidden", "true");
    row.insertCell().colSpan = heads.length;
    return row;
  };
  const [above, below] = [space(), space()];
  let shown = Uint32Array.from({ length: count }, (_, i) => i);
  let height = body.rows[0]?.offsetHeight || 34;
  let drawn = "";

  function rowOf(i, place) {
    const row = document.createElement("tr");
    row.setAttribute("aria-rowindex", place + 2);
    names.forEach((name, k) => {
      const cell = document.createElement(k ? "td" : "th");
      if (!k) cell.scope = "row";
      if (heads[k].classList.contains("number")) cell.className = "number";
      cell.textContent = say[name]?.(i) ?? fixed(columns[name][i]);
      if (say[name]) cell.title = cell.textContent;
      row.append(cell);
    });
    return row;
  }

  function lay(from, to) {
    if (drawn === `${from} ${to}`) return;
    drawn = `${from} ${to}`;
    above.cells[0].style.height = `${from * height}px`;
    below.cells[0].style.height = `${(shown.length - to) * height}px`;
    const rows = Array.from(shown.subarray(from, to), (i, k) => rowOf(i, from + k));
    body.replaceChildren(above, ...rows, below);
  }

  let printing = false;
  function look() {
    if (printing) return;
    const first = Math.floor(pane.scrollTop / height);
    const many = Math.min(Math.ceil(pane.clientHeight / height) || 20, 100);
    // Rows come in tens, so that few scrolls lay them anew.
    const from = Math.max(0, Math.floor(first / 10) * 10 - 10);
    lay(from, Math.min(shown.length, from + many + 40));
  }
  pane.addEventListener("scroll", () => requestAnimationFrame(look));
  addEventListener("resize", () => {
    if (printing) return;
    height = body.querySelector("tr:not(.space)")?.offsetHeight || height;
    drawn = "";
    look();
  });
  // Paper takes the first hundred.
  addEventListener("beforeprint", () => {
    printing = true;
    lay(0, Math.min(100, shown.length));
    below.cells[0].style.height = 0;
  });
  addEventListener("afterprint", () => {
    printing = false;
    drawn = "";
    look();
  });

  // Which neurons, in which order.
  const bar = document.querySelector("#neurons .choose");
  const favorite = bar.querySelector(".favorite");
  const text = bar.querySelector(".text");
  const status = bar.querySelector(".count");
  const sorted = { column: null, order: "none" };

  function wanted() {
    const words = text.value.toLowerCase().split(/\s+/).filter(Boolean).map((word) => {
      const plain = word.replace(/^#/, "");
      return {
        number: /^\d+$/.test(plain) ? Number(plain) : -1,
        layer: layers.names.map((name) => name.toLowerCase().includes(word)),
        favorite: favorites.map((name) => name.toLowerCase().includes(word)),
      };
    });
    const label = favorite.value === "" ? null : Number(favorite.value);
    return (i) =>
      (layers.chosen === null || columns.layer[i] === layers.chosen) &&
      (label === null || columns.favorite[i] === label) &&
      words.every((word) =>
        word.number === columns.index[i] || word.layer[columns.layer[i]] || word.favorite[columns.favorite[i]]);
  }

  function apply() {
    const fits = wanted();
    const kept = new Uint32Array(count);
    let many = 0;
    for (let i = 0; i < count; i++) if (fits(i)) kept[many++] = i;
    shown = kept.subarray(0, many);
    if (sorted.order !== "none") {
      const values = columns[sorted.column];
      const sign = sorted.order === "ascending" ? 1 : -1;
      // What has no number comes last, whichever way the others go.
      const known = shown.filter((i) => !Number.isNaN(values[i]));
      const unknown = shown.filter((i) => Number.isNaN(values[i]));
      known.sort((a, b) => sign * (values[a] - values[b]) || a - b);
      shown = new Uint32Array(many);
      shown.set(known);
      shown.set(unknown, known.length);
    }
    table.setAttribute("aria-rowcount", many + 1);
    status.textContent = `${many.toLocaleString("en")} of ${count.toLocaleString("en")}`;
    pane.scrollTop = 0;
    drawn = "";
    look();
    clearTimeout(settled);
    settled = setTimeout(histograms, 120);
  }

  // Histograms of what is shown.
  const all = Object.fromEntries(Object.keys(contam.data.histograms).map((anchor) =>
    [anchor, contam.data.charts[anchor]?.data.values]));
  let settled = 0;
  function histograms() {
    for (const [anchor, { edges, columns: series }] of Object.entries(contam.data.histograms)) {
      const chart = contam.data.charts[anchor];
      if (!chart) continue;
      const last = edges.length - 2;
      const width = (edges[last + 1] - edges[0]) / (last + 1);
      chart.data.values = shown.length === count ? all[anchor] : Object.entries(series).flatMap(([name, column]) => {
        const bins = new Uint32Array(last + 1);
        for (const i of shown) {
          const value = columns[column][i];
          if (!Number.isNaN(value)) bins[Math.min(Math.max(Math.floor((value - edges[0]) / width), 0), last)]++;
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
      for (const each of heads) each.setAttribute("aria-sort", each === head ? sorted.order : "none");
      apply();
    });
    head.append(button);
    head.setAttribute("aria-sort", "none");
  });
  favorite.addEventListener("change", apply);
  let typed = 0;
  text.addEventListener("input", () => {
    clearTimeout(typed);
    typed = setTimeout(apply, 150);
  });
  layers.follow(apply);

  contam.downloadable(document.querySelector("#neurons .tools"), "neurons", () => [
    names,
    ...Array.from(shown, (i) =>
      names.map((name) => say[name]?.(i) ?? (Number.isNaN(columns[name][i]) ? null : columns[name][i].toFixed(3)))),
  ], "Download these neurons as CSV");
  apply();
})();
