// Filter and sort the claims.
(() => {
  let filter = () => {};
  const filters = document.querySelector(".filters");
  if (filters) {
    const rows = [...document.querySelectorAll(".claim")];
    const buttons = [...filters.querySelectorAll("button")];
    const select = filters.querySelector("select");
    const status = filters.querySelector("[role=status]");
    const apply = () => {
      const pressed = buttons.find((button) => button.getAttribute("aria-pressed") === "true");
      const { verdict } = pressed.dataset;
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
        for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
        apply();
      });
    select?.addEventListener("change", apply);
    filters.hidden = false;
    filter = apply;
    // A link to a claim that the filter hides resets the filter.
    addEventListener("hashchange", () => {
      const row = document.getElementById(location.hash.slice(1));
      if (!row?.classList.contains("claim") || !row.hidden) return;
      if (select) select.value = "";
      buttons[0].click();
      row.scrollIntoView();
    });
  }

  // Click a column's header once to sort all claims, twice to reverse the order, and a third time
  // to group them by experiment again.
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
        // Claims without a number come last in either order.
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
})();
