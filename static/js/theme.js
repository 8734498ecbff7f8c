// Theme button: switches light or dark and stores it in a cookie; the server renders it on the next page.
const root = document.documentElement;

const isDark = () =>
  root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;

document.addEventListener("click", (event) => {
  if (!event.target.closest("[data-theme-toggle]")) return;
  root.dataset.theme = isDark() ? "light" : "dark";
  document.cookie = `theme=${root.dataset.theme};path=/;max-age=31536000;samesite=lax`;
});

// A choice in Personal Settings applies immediately; htmx saves it.
document.addEventListener("change", ({ target }) => {
  if (!target.closest("[data-theme-choice]")) return;
  if (target.value) root.dataset.theme = target.value;
  else delete root.dataset.theme;
});
