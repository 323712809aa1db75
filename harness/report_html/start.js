// Small helpers, and the switch between light and dark. Texts become text nodes, never HTML.

const byId = (id) => document.getElementById(id);

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function say(text) {
  byId("said").textContent = text;
}

const THEMES = ["system", "light", "dark"];

function showTheme(theme) {
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  byId("theme").textContent = `Theme: ${theme}`;
}

function storedTheme() {
  try {
    const theme = localStorage.getItem("lalm-harness-theme");
    return THEMES.includes(theme) ? theme : "system";
  } catch {
    return "system"; // a page from a disk may have no storage
  }
}

let theme = storedTheme();
showTheme(theme);
byId("theme").addEventListener("click", () => {
  theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
  showTheme(theme);
  try {
    localStorage.setItem("lalm-harness-theme", theme);
  } catch {
    // it then lasts as long as the page
  }
});

// The address names the run and the item, so links within the page scroll without changing it.
for (const link of document.querySelectorAll("a[data-focus]")) {
  link.addEventListener("click", (event) => {
    const target = byId(link.dataset.focus);
    if (target === null) return;
    event.preventDefault();
    target.focus({ preventScroll: true });
    target.scrollIntoView();
  });
}
