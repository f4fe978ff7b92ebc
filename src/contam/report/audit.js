// The layer that is chosen, in lists, charts and tables alike.
const layers = (() => {
  const { layers: names, sizes, rates, charts } = contam.data;
  const bars = [...document.querySelectorAll(".choose")];
  const rows = [...document.querySelectorAll(".layers tbody tr")];
  const depths = [...document.querySelectorAll(".depth .chart")];
  const followers = [];
  let chosen = null;

  // The plot without its axes and legends, as Vega draws it.
  const plotOf = (place) => place.querySelector("svg .role-frame.root > g > path.background");

  function point(place) {
    place.querySelector(".chosen-layer")?.remove();
    const view = contam.views.get(place)?.view;
    if (!view || chosen === null || chosen >= sizes.length) return;
    const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
    const x = view.scale("x")(chosen + 1);
    const ends = { x1: x, x2: x, y1: 0, y2: view.height() };
    for (const [name, value] of Object.entries(ends)) line.setAttribute(name, value);
    line.setAttribute("class", "chosen-layer");
    plotOf(place).after(line);
  }

  // The rates of the chosen layer by class, in the chart that was made for the last one.
  function follow(name) {
    const byClass = rates?.values[name];
    if (!byClass) return;
    const chart = charts[rates.anchor];
    const { x, y } = chart.layer[0].encoding;
    const labels = (x.field === "group" ? x : y).scale.domain;
    chart.data.values = Object.entries(byClass).flatMap(([series, values]) =>
      values.map((value, k) => ({ group: labels[k], series, y: value })).filter((bar) => bar.y !== null),
    );
    document.querySelector(".of-layer").textContent = name;
    contam.redraw(document.getElementById(rates.anchor));
  }

  function choose(layer) {
    chosen = layer;
    for (const bar of bars) {
      bar.querySelector(".layer").value = layer ?? "";
      bar.querySelector(".earlier").disabled = !layer;
      bar.querySelector(".later").disabled = layer === names.length - 1;
    }
    for (const row of rows) {
      const here = Number(row.dataset.layer) === layer;
      row.classList.toggle("chosen", here);
      row.querySelector("button").setAttribute("aria-pressed", String(here));
    }
    const status = document.querySelector(".about-layer");
    if (status) {
      const size = sizes[layer]?.toLocaleString("en");
      status.textContent = layer === null || !size ? "" : `${layer + 1} of ${sizes.length}, ${size} neurons`;
    }
    depths.forEach(point);
    follow(names[layer ?? sizes.length - 1]);
    for (const follower of followers) follower(layer);
  }

  for (const bar of bars) {
    const select = bar.querySelector(".layer");
    select.addEventListener("change", () => choose(select.value === "" ? null : Number(select.value)));
    bar.querySelector(".earlier").addEventListener("click", () => choose(Math.max(chosen - 1, 0)));
    bar.querySelector(".later").addEventListener("click", () => choose(chosen === null ? 0 : chosen + 1));
    bar.hidden = false;
  }
  for (const row of rows) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...row.cells[0].childNodes);
    button.addEventListener("click", () => {
      const layer = Number(row.dataset.layer);
      choose(layer === chosen ? null : layer);
    });
    row.cells[0].append(button);
  }
  for (const place of depths) {
    place.addEventListener("drawn", () => point(place));
    place.addEventListener("click", (event) => {
      const view = contam.views.get(place)?.view;
      const plot = plotOf(place)?.getBoundingClientRect();
      if (!view || !plot || event.clientX < plot.left - 8 || event.clientX > plot.right + 8) return;
      const at = Math.round(view.scale("x").invert(event.clientX - plot.left)) - 1;
      choose(Math.min(Math.max(at, 0), sizes.length - 1));
    });
  }
  // The numbers of curves, as they are drawn.
  for (const figure of document.querySelectorAll("figure.depth"))
    contam.downloadable(figure.querySelector(".tools"), figure.id, () => [
      ["layer", "measure", "data", "value", "low", "high"],
      ...[...figure.querySelectorAll(".chart")].flatMap((place) => {
        const measure = document.getElementById(`${place.id}-title`).textContent;
        return charts[place.id].data.values.map(({ x, series, y, low, high }) =>
          [names[x - 1], measure, series, y, low ?? null, high ?? null]);
      }),
    ]);
  if (bars.length) choose(null);
  return { names, get chosen() { return chosen; }, follow: (follower) => followers.push(follower) };
})();
