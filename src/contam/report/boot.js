// Before anything is painted: the reader's own choice of theme, or else the system's.
(() => {
  let theme = null;
  try { theme = localStorage.getItem("contam-theme"); } catch { /* storage may be forbidden */ }
  if (theme !== "light" && theme !== "dark")
    theme = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  document.documentElement.dataset.theme = theme;
  document.documentElement.classList.add("js");
})();
