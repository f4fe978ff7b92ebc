// Set the theme before the first paint: the reader's stored choice, or the system's setting.
(() => {
  let theme = null;
  try { theme = localStorage.getItem("contam-theme"); } catch { /* storage may be forbidden */ }
  if (theme !== "light" && theme !== "dark")
    theme = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  document.documentElement.dataset.theme = theme;
  document.documentElement.classList.add("js");
})();
