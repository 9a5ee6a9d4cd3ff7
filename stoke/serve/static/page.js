"use strict";
// The page of `stoke serve`: a login, then a terminal that a WebSocket connects with the screens.
// Bytes are what is typed and what is drawn. Text is JSON: {key, session, rows, columns} to begin with,
// {rows, columns} at each change, and {session, is_new} in answer to the first. A page that hears nothing
// asks with {ping}, which {pong} answers: browsers do not report that a network is gone.

const KEY = "stoke.key"; // In localStorage: of this origin, so it outlives the tab.
const SESSION = "stoke.session"; // In sessionStorage: of this tab, also after a reload.
const PIECE = 65536;
const MOST_COPIED = 1 << 20;
const NOTICE_MS = 6000;
const PING_MS = 15000;
const ENDED = 4000, REPLACED = 4001, TOO_MANY = 4002, LOGGED_OUT = 4003, FAILED = 4004;

const part = (id) => document.getElementById(id);
const encoder = new TextEncoder();
const terminal = new Terminal({
  allowProposedApi: true,
  cursorBlink: false,
  fontFamily: "ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace",
  fontSize: 14,
  scrollback: 0,
  theme: { background: "#12161c" },
  linkHandler: { activate: (_, address) => openLink(address) },
});
const fit = new FitAddon.FitAddon();
let socket = null;
let retryMs = 500;
let unanswered = 0; // Pings since the server was last heard.

terminal.loadAddon(fit);
terminal.loadAddon(new Unicode11Addon.Unicode11Addon());
terminal.unicode.activeVersion = "11";
terminal.onData((text) => send(encoder.encode(text)));
terminal.onBinary((text) => send(Uint8Array.from(text, (letter) => letter.charCodeAt(0))));
terminal.onResize(({ rows, cols }) => tell({ rows, columns: cols }));
terminal.attachCustomKeyEventHandler((event) => {
  if (event.key === "F11" && event.type === "keydown") {
    fullScreen();
    event.preventDefault();
    return false;
  }
  // The browser pastes, and ctrl+v stays its key. The terminal marks what is pasted.
  return !((event.ctrlKey || event.metaKey) && event.code === "KeyV");
});
// OSC 52: programs may set the clipboard; the request to read it is never answered.
terminal.parser.registerOscHandler(52, (data) => copy(data.slice(data.indexOf(";") + 1)));

// In this full screen, unlike in the browser's own, browsers that can do so pass all keys on to the page.
async function fullScreen() {
  if (document.fullscreenElement !== null) {
    await document.exitFullscreen();
    return;
  }
  await document.documentElement.requestFullscreen();
  await navigator.keyboard?.lock(["KeyN", "KeyT", "KeyW"]);
}

function isOpen() {
  return socket !== null && socket.readyState === WebSocket.OPEN;
}

function send(bytes) {
  for (let at = 0; at < bytes.length && isOpen(); at += PIECE) {
    socket.send(bytes.subarray(at, at + PIECE));
  }
}

function tell(value) {
  if (isOpen()) {
    socket.send(JSON.stringify(value));
  }
}

function copy(encoded) {
  if (encoded === "?" || encoded.length > MOST_COPIED) {
    return true;
  }
  try {
    const bytes = Uint8Array.from(atob(encoded), (letter) => letter.charCodeAt(0));
    const text = new TextDecoder().decode(bytes);
    if (navigator.clipboard === undefined) {
      notice("Copying needs HTTPS, or a page of this machine.");
    } else {
      navigator.clipboard.writeText(text).catch(() => notice("The browser did not allow to copy."));
    }
  } catch {
    // Not base64.
  }
  return true;
}

function openLink(address) {
  const url = URL.canParse(address) ? new URL(address) : null;
  if (url !== null && ["http:", "https:"].includes(url.protocol) && confirm(`Open ${url.href}?`)) {
    window.open(url.href, "_blank", "noopener,noreferrer");
  }
}

// Without an action the notice goes after a while.
let noticeTimer = 0;
function notice(text, action = "", act = null) {
  clearTimeout(noticeTimer);
  part("text").textContent = text;
  part("action").textContent = action;
  part("action").hidden = act === null;
  part("action").onclick = () => { hideNotice(); act(); };
  part("notice").hidden = false;
  if (act === null) {
    noticeTimer = setTimeout(hideNotice, NOTICE_MS);
  } else {
    part("action").focus(); // The terminal takes the tab key, so it would never come here.
  }
}

function hideNotice() {
  part("notice").hidden = true;
  terminal.focus();
}

function connect() {
  const mine = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/terminal`);
  socket = mine;
  mine.binaryType = "arraybuffer";
  mine.onopen = () => {
    unanswered = 0;
    terminal.reset();
    tell({
      key: localStorage.getItem(KEY) ?? "",
      session: sessionStorage.getItem(SESSION) ?? "",
      rows: terminal.rows,
      columns: terminal.cols,
    });
  };
  mine.onmessage = ({ data }) => {
    unanswered = 0;
    if (typeof data !== "string") {
      terminal.write(new Uint8Array(data));
    } else if (data.includes("session")) {
      opened(JSON.parse(data));
    }
  };
  mine.onclose = (event) => { if (socket === mine) { closed(event); } };
}

setInterval(() => {
  if (!isOpen()) {
    return;
  }
  // Counted, because browsers run the timers of hidden tabs once a minute.
  if (unanswered >= 3) {
    socket.close();
    closed({ code: 0, reason: "" });
  } else {
    unanswered += 1;
    tell({ ping: true });
  }
}, PING_MS);

function opened({ session, is_new: isNew }) {
  const before = sessionStorage.getItem(SESSION);
  sessionStorage.setItem(SESSION, session);
  retryMs = 500;
  hideNotice();
  if (isNew && before !== null) {
    notice("The earlier screens have ended, so these are new ones. Jobs run on.");
  }
}

function forget() {
  sessionStorage.removeItem(SESSION);
}

function closed({ code, reason }) {
  socket = null;
  if (code === ENDED) {
    forget();
    notice("The screens have ended. Jobs run on.", "Open them again", connect);
  } else if (code === REPLACED) {
    notice("These screens are open in another tab.", "Show them here", connect);
  } else if (code === TOO_MANY) {
    notice(`${reason} screens are open, which is the most (serve.sessions).`, "Try again", connect);
  } else if (code === LOGGED_OUT) {
    forget();
    login("This login has ended.");
  } else if (code === FAILED) {
    notice(`The screens cannot be started: ${reason}`, "Try again", connect);
  } else {
    notice("The connection is lost.", "Connect now", start);
    setTimeout(() => { if (socket === null) { start(); } }, retryMs);
    retryMs = Math.min(2 * retryMs, 10000);
  }
}

function login(problem) {
  part("terminal").hidden = true;
  part("notice").hidden = true;
  part("problem").textContent = problem;
  part("login").hidden = false;
  part("token").focus();
}

part("login").onsubmit = async (event) => {
  event.preventDefault();
  part("problem").textContent = ""; // The same problem again is announced again.
  const token = part("token").value.trim();
  part("token").value = "";
  try {
    const answer = await fetch("/login", { method: "POST", headers: { Authorization: `Bearer ${token}` } });
    const body = await answer.json();
    if (!answer.ok) {
      part("problem").textContent = body.detail;
      return;
    }
    localStorage.setItem(KEY, body.key);
    show();
  } catch {
    part("problem").textContent = "The server did not answer, or this is no token.";
  }
};

function show() {
  part("login").hidden = true;
  part("terminal").hidden = false;
  if (terminal.element === undefined) {
    terminal.open(part("terminal"));
    new ResizeObserver(() => fit.fit()).observe(part("terminal"));
  }
  fit.fit();
  terminal.focus();
  connect();
}

async function start() {
  try {
    const { token } = await (await fetch("/session")).json();
    if (token === null) {
      login(localStorage.getItem(KEY) === null ? "" : "This login has ended.");
    } else {
      show();
    }
  } catch {
    closed({ code: 0, reason: "" }); // The server is not there.
  }
}

start();
