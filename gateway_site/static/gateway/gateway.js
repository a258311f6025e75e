// Small conveniences; every page works without them.
(() => {
  "use strict";

  const copyText = async (button) => {
    const source = document.getElementById(button.dataset.copy);
    if (!source) return;
    const status = button.querySelector("[data-copy-label]") ?? button;
    const before = button.dataset.label ?? (button.dataset.label = status.textContent);
    try {
      await navigator.clipboard.writeText(source.textContent);
      status.textContent = "Copied";
    } catch {
      // No clipboard outside a secure context: select, so that the keyboard can copy.
      getSelection().selectAllChildren(source);
      status.textContent = "Selected: press Ctrl+C";
    }
    setTimeout(() => { status.textContent = before; }, 2000);
  };

  const showTab = (tabs, chosen, focus) => {
    for (const tab of tabs) {
      const here = tab === chosen;
      tab.setAttribute("aria-selected", String(here));
      tab.tabIndex = here ? 0 : -1;
      document.getElementById(tab.getAttribute("aria-controls")).hidden = !here;
    }
    if (focus) chosen.focus();
  };

  // A list of links to sections becomes a tab list (WAI-ARIA authoring practices, tabs).
  const makeTabs = (root) => {
    const list = root.querySelector("[data-tab-list]");
    const tabs = [...list.querySelectorAll("a")];
    list.setAttribute("role", "tablist");
    for (const item of list.querySelectorAll("li")) item.setAttribute("role", "presentation");
    tabs.forEach((tab, index) => {
      const panel = document.getElementById(tab.hash.slice(1));
      tab.id ||= `tab-${panel.id}`;
      tab.setAttribute("role", "tab");
      tab.setAttribute("aria-controls", panel.id);
      panel.setAttribute("role", "tabpanel");
      panel.setAttribute("aria-labelledby", tab.id);
      tab.addEventListener("click", (event) => {
        event.preventDefault();
        showTab(tabs, tab, false);
        if (!root.closest("dialog")) history.replaceState(null, "", tab.hash);
      });
      tab.addEventListener("keydown", (event) => {
        const to = { ArrowRight: index + 1, ArrowLeft: index - 1, Home: 0, End: tabs.length - 1 }[event.key];
        if (to === undefined) return;
        event.preventDefault();
        showTab(tabs, tabs[(to + tabs.length) % tabs.length], true);
      });
    });
    showTab(tabs, tabs.find((tab) => tab.hash === location.hash) ?? tabs[0], false);
    root.dataset.ready = "";
  };

  // Without this a time stands there in UTC, and says so.
  const clock = new Intl.DateTimeFormat("en-GB", {
    day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit", timeZoneName: "short",
  });
  const tellLocalTime = (time) => {
    time.title = time.textContent;
    time.textContent = clock.format(new Date(time.dateTime));
  };

  const enhance = (root) => {
    for (const time of root.querySelectorAll("time[datetime]")) tellLocalTime(time);
    for (const button of root.querySelectorAll("button[data-copy]")) {
      button.hidden = false;
      button.addEventListener("click", () => copyText(button));
    }
    for (const tabs of root.querySelectorAll("[data-tabs]")) makeTabs(tabs);
  };

  // A link to a page may show that page's [data-dialog-part] in a dialog instead.
  const openInDialog = async (link) => {
    const answer = await fetch(link.href, { headers: { "X-Requested-With": "dialog" } });
    if (!answer.ok || answer.redirected) throw new Error("not shown in a dialog");
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const part = page.querySelector("[data-dialog-part]");
    const dialog = document.createElement("dialog");
    dialog.className = "dialog";
    dialog.setAttribute("aria-labelledby", part.querySelector("h1, h2").id);
    const close = document.createElement("button");
    close.type = "button";
    close.className = "button small dialog-close";
    close.textContent = "Close";
    close.addEventListener("click", () => dialog.close());
    dialog.append(close, document.adoptNode(part));
    dialog.addEventListener("close", () => { dialog.remove(); link.focus(); });
    dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
    document.body.append(dialog);
    dialog.showModal();
    enhance(dialog);
  };

  // A decision counts once: a second click must not overtake the answer to the first.
  for (const form of document.querySelectorAll("form[data-once]")) {
    form.addEventListener("submit", (event) => {
      if (form.dataset.sent) event.preventDefault();
      form.dataset.sent = "yes";
    });
    addEventListener("pageshow", () => { delete form.dataset.sent; });
  }

  enhance(document);
  for (const link of document.querySelectorAll("a[data-dialog]")) {
    link.addEventListener("click", (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey || event.button !== 0) return;
      event.preventDefault();
      openInDialog(link).catch(() => { location.href = link.href; });
    });
  }
})();
