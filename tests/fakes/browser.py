"""A browser without a window: it keeps cookies, reads forms and presses buttons by their words.

It holds to what real browsers do and servers trip over: an ``Origin`` with every form, no
redirect across the page's ``form-action`` policy, hidden fields sent back as they came.
Only the standard library and httpx are used, so that clients in other environments can use it.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx

MOST_REDIRECTS = 20
MOST_STEPS = 25


class BrowserStopped(AssertionError):
    """The browser cannot go on as a person would; the message shows where it stands."""


@dataclass
class Button:
    """Something that submits its form."""

    label: str
    name: str = ""
    value: str = ""
    disabled: bool = False


@dataclass
class Form:
    """One form with the fields a browser would send."""

    action: str
    method: str
    fields: dict[str, str] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    buttons: list[Button] = field(default_factory=list)

    def field_of_kind(self, *kinds: str) -> str:
        """Return the name of the first field whose type is one of ``kinds``, or ""."""
        return next((name for name, kind in self.kinds.items() if kind in kinds), "")


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.forms: list[Form] = []
        self.links: list[tuple[str, str]] = []
        self.words: list[str] = []
        self._form: Form | None = None
        self._button: Button | None = None
        self._link: list[str] | None = None
        self._select = ""
        self._silent = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag in ("script", "style", "template"):
            self._silent += 1
        elif tag == "form":
            self._form = Form(given.get("action", ""), given.get("method", "get").lower())
            self.forms.append(self._form)
        elif tag == "a" and given.get("href"):
            self._link = [given["href"], given.get("aria-label", "")]
        elif self._form is not None:
            self._read_control(tag, given)

    def _read_control(self, tag: str, given: dict[str, str]) -> None:
        form = self._form
        assert form is not None
        kind = given.get("type", "submit" if tag == "button" else "text").lower()
        if tag == "button" or (tag == "input" and kind == "submit"):
            label = given.get("aria-label", "") or (
                given.get("value", "") if tag == "input" else ""
            )
            button = Button(
                label, given.get("name", ""), given.get("value", ""), "disabled" in given
            )
            if kind == "submit":
                form.buttons.append(button)
            self._button = button if tag == "button" else None
        elif tag in ("input", "textarea") and given.get("name"):
            if kind in ("checkbox", "radio") and "checked" not in given:
                form.kinds.setdefault(given["name"], kind)
                return
            form.fields[given["name"]] = given.get("value", "on" if kind == "checkbox" else "")
            form.kinds[given["name"]] = kind
        elif tag == "select":
            self._select = given.get("name", "")
        elif tag == "option" and self._select:
            form.kinds[self._select] = "select"
            if self._select not in form.fields or "selected" in given:
                form.fields[self._select] = given.get("value", "")

    def handle_data(self, data: str) -> None:
        if self._silent:
            return
        self.words.append(data)
        if self._button is not None:
            self._button.label += f" {data}"
        if self._link is not None:
            self._link[1] += f" {data}"

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style", "template"):
            self._silent -= 1
        elif tag == "form":
            self._form = None
        elif tag == "button":
            self._button = None
        elif tag == "select":
            self._select = ""
        elif tag == "a" and self._link is not None:
            self.links.append((self._link[0], " ".join(self._link[1].split())))
            self._link = None


@dataclass
class Page:
    """What the browser shows, or the address at which it was told to stop."""

    url: str
    status: int
    html: str
    headers: httpx.Headers
    stopped_at: str = ""
    forms: list[Form] = field(default_factory=list)
    links: list[tuple[str, str]] = field(default_factory=list)
    text: str = ""

    def __post_init__(self) -> None:
        reader = _Reader()
        if "html" in self.headers.get("content-type", ""):
            reader.feed(self.html)
        self.forms, self.links = reader.forms, reader.links
        self.text = " ".join(" ".join(reader.words).split()) or self.html

    def find_button(self, words: str) -> tuple[Form, Button] | None:
        """Return the first enabled button whose label begins with ``words``, with its form."""
        for form in self.forms:
            for button in form.buttons:
                if _begins(button.label, words) and not button.disabled:
                    return form, button
        return None

    def find_link(self, words: str) -> str:
        """Return the address of the first link whose text begins with ``words``, or ""."""
        return next((target for target, said in self.links if _begins(said, words)), "")


class Browser:
    """One person's browser.

    Args:
        stops: beginnings of addresses it must not open, such as a client's redirect URI. It
            stops there and ``Page.stopped_at`` is the full address.
        verify: what httpx takes for TLS verification.
        address: where it says it is, to a server that believes a proxy (``X-Forwarded-For``).
    """

    def __init__(
        self, stops: tuple[str, ...] = (), *, verify: Any = True, address: str = ""
    ) -> None:
        self.stops = stops
        self.page: Page | None = None
        self.visited: list[str] = []
        headers = {"X-Forwarded-For": address} if address else {}
        self._client = httpx.Client(verify=verify, timeout=20, trust_env=False, headers=headers)

    def open(self, url: str) -> Page:
        """Go to an address as if typed or clicked."""
        return self._travel("GET", url, {}, allowed=lambda target: True)

    def press(self, words: str, **filled: str) -> Page:
        """Press the button, or failing that follow the link, whose label begins with ``words``.

        Raises:
            BrowserStopped: the page has neither.
        """
        page = self._shown()
        found = page.find_button(words)
        if found is not None:
            return self._submit(page, *found, filled)
        link = page.find_link(words)
        if link:
            return self.open(urljoin(page.url, link))
        raise BrowserStopped(f"no “{words}” at {page.url} ({page.status}): {page.text[:1500]}")

    def _shown(self) -> Page:
        if self.page is None:
            raise BrowserStopped("nothing is open yet")
        return self.page

    def _submit(self, page: Page, form: Form, button: Button, filled: dict[str, str]) -> Page:
        data = {**form.fields, **filled}
        if button.name:
            data[button.name] = button.value
        target = urljoin(page.url, form.action or page.url)
        allowed = _form_action_of(page)
        if not allowed(target):
            raise BrowserStopped(f"the policy of {page.url} forbids to send a form to {target}")
        if form.method == "get":
            query = str(httpx.QueryParams(data))
            return self._travel("GET", f"{target.split('?')[0]}?{query}", {}, allowed=allowed)
        return self._travel("POST", target, data, allowed=allowed, referer=page)

    def _travel(
        self,
        method: str,
        url: str,
        data: dict[str, str],
        *,
        allowed: Callable[[str], bool],
        referer: Page | None = None,
    ) -> Page:
        for _ in range(MOST_REDIRECTS):
            if url.startswith(self.stops) and self.stops:
                self.page = Page(url, 0, "", httpx.Headers(), stopped_at=url)
                return self.page
            headers = {"Accept": "text/html,*/*"}
            if referer is not None:
                headers |= _form_headers(referer, url)
            sent: dict[str, Any] = {"data": data} if method == "POST" else {}
            answer = self._client.request(method, url, headers=headers, **sent)
            self.visited.append(f"{method} {url.split('?')[0]} {answer.status_code}")
            if answer.status_code not in (301, 302, 303, 307, 308):
                self.page = Page(url, answer.status_code, answer.text, answer.headers)
                return self.page
            url = urljoin(url, answer.headers["location"])
            if not allowed(url):
                raise BrowserStopped(f"form-action forbids the redirect to {url}: {self.visited}")
            if answer.status_code not in (307, 308):
                method, data, referer = "GET", {}, None
        raise BrowserStopped(f"redirected for ever: {self.visited[-5:]}")

    def sign_in(self, username: str, password: str) -> Page:
        """Fill in the sign-in form that is shown and send it."""
        page = self._shown()
        form = next(form for form in page.forms if form.field_of_kind("password"))
        filled = {
            form.field_of_kind("text", "email"): username,
            form.field_of_kind("password"): password,
        }
        return self._submit(page, form, form.buttons[0], filled)

    def close(self) -> None:
        """Close every connection."""
        self._client.close()


def walk_consent(
    browser: Browser, url: str, username: str, password: str, *, key: str = "", until: str = ""
) -> str:
    """Do what a person does between pressing “connect” in a client and being sent back to it.

    Signs in where asked, connects every upstream that can be connected (with ``key`` where one
    is asked for), approves at the upstream's own authorization server, presses Authorize.
    Returns the redirect's address, or that of the first page which says ``until``.

    Raises:
        BrowserStopped: a page came up on which there is nothing to press.
    """
    page = browser.open(url)
    for _ in range(MOST_STEPS):
        if page.stopped_at or (until and until in page.text):
            return page.stopped_at or page.url
        if any("key" in form.fields for form in page.forms):
            page = browser.press("Save key", key=key)
            continue
        if any(form.field_of_kind("password") for form in page.forms):
            page = browser.sign_in(username, password)
            continue
        for words in ("Connect", "Approve", "Allow", "Continue", "Authorize"):
            if page.find_button(words) or page.find_link(words):
                page = browser.press(words, **_account(page, username))
                break
        else:
            raise BrowserStopped(f"stuck at {page.url} ({page.status}): {page.text[:1500]}")
    raise BrowserStopped(f"going round in circles: {browser.visited[-8:]}")


def _account(page: Page, username: str) -> dict[str, str]:
    """Say who one is where an upstream's authorization server asks for a name only."""
    asks = any("person" in form.fields for form in page.forms)
    return {"person": username} if asks else {}


def _begins(label: str, words: str) -> bool:
    return f"{' '.join(label.split())} ".lower().startswith(f"{words} ".lower())


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _form_headers(page: Page, target: str) -> dict[str, str]:
    policy = page.headers.get("referrer-policy", "")
    same = _origin(page.url) == _origin(target)
    if policy == "no-referrer":
        return {"Origin": "null"}
    if policy == "same-origin" and not same:
        return {"Origin": _origin(page.url)}
    return {"Origin": _origin(page.url), "Referer": page.url if same else _origin(page.url) + "/"}


def _form_action_of(page: Page) -> Callable[[str], bool]:
    """Return whether an address may be reached by a form of this page (CSP form-action)."""
    policy = page.headers.get("content-security-policy", "")
    found = re.search(r"(?:^|;)\s*form-action\s+([^;]*)", policy)
    if not found:
        return lambda target: True
    sources = found.group(1).split()

    def allowed(target: str) -> bool:
        for source in sources:
            if source == "'self'" and _origin(target) == _origin(page.url):
                return True
            if source.endswith(":") and target.startswith(source):
                return True
            if "://" in source and (target + "/").startswith(source.rstrip("/") + "/"):
                return True
            if "://" in source and target.startswith(source.rstrip("/") + "?"):
                return True
        return False

    return allowed
