"use strict";
// Light or dark: as the system says, until the reader chooses. Runs before the page is drawn.
(() => {
  const CHOICES = ["auto", "light", "dark"];
  const KEY = "audit-theme";
  let choice = "auto";
  try {
    // A page opened from disk may have no storage.
    choice = window.localStorage.getItem(KEY) || "auto";
  } catch {
    choice = "auto";
  }
  if (!CHOICES.includes(choice)) choice = "auto";

  function apply() {
    if (choice === "auto") document.documentElement.removeAttribute("data-theme");
    else document.documentElement.dataset.theme = choice;
  }

  function offer() {
    const button = document.getElementById("theme");
    if (!button) return;
    const label = () => {
      button.textContent = button.dataset[choice];
    };
    button.hidden = false;
    label();
    button.addEventListener("click", () => {
      choice = CHOICES[(CHOICES.indexOf(choice) + 1) % CHOICES.length];
      try {
        window.localStorage.setItem(KEY, choice);
      } catch {
        // Then it holds for this visit.
      }
      apply();
      label();
      document.dispatchEvent(new CustomEvent("audit:theme"));
    });
  }

  apply();
  document.addEventListener("DOMContentLoaded", offer);
})();
