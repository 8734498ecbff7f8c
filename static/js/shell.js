// Collapses the sidebar; closes the account menu and tooltips on Escape.
const root = document.documentElement;
const RAIL_PX = 96;

const openMenus = () => document.querySelectorAll("details.menu[open]");

const toggleRail = (button) => {
  const isRail = document.getElementById("sidebar").offsetWidth < RAIL_PX;
  root.dataset.sidebar = isRail ? "full" : "rail";
  document.cookie = `sidebar=${root.dataset.sidebar};path=/;max-age=31536000;samesite=lax`;
  button.setAttribute("aria-expanded", String(isRail));
};

document.addEventListener("click", ({ target }) => {
  for (const menu of openMenus()) if (!menu.contains(target)) menu.open = false;
  const button = target.closest("[data-rail-toggle]");
  if (button) toggleRail(button);
});

document.addEventListener("keydown", ({ key }) => {
  if (key !== "Escape") return;
  document.body.classList.add("tips-off");
  for (const menu of openMenus()) {
    menu.open = false;
    menu.querySelector("summary").focus();
  }
});

document.addEventListener("pointermove", () => document.body.classList.remove("tips-off"), { passive: true });

// Close the sidebar popover when the window becomes wide: it would cover the sidebar column.
matchMedia("(min-width: 48rem)").addEventListener("change", () => {
  const sidebar = document.getElementById("sidebar");
  if (sidebar?.matches(":popover-open")) sidebar.hidePopover();
});

document.addEventListener("click", ({ target }) => {
  if (target.closest("[data-print]")) print();
});
