//! A real Chromium, driven by a pipe over the protocol of its developer tools, so that it needs neither a driver nor a port.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use serde_json::{Value, json};

use crate::stage::{PATIENCE, until};

/// A name that this browser takes for this machine, as one does whose name server lies.
pub(crate) const REBOUND: &str = "rebound.example";

/// A browser with one page; ends when dropped, and when the test process dies.
pub(crate) struct Browser {
    child: Child,
    to: ChildStdin,
    from: Receiver<Value>,
    session: String,
    asked: u64,
    events: Vec<Value>,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts it with an empty page of this size.
    pub(crate) fn start(width: u32, height: u32) -> Self {
        let profile = tempfile::tempdir().unwrap();
        // What it says on the pipe is on descriptors 3 and 4.
        let line = "exec setpriv --pdeathsig KILL \"$@\" 3<&0 4>&1 0</dev/null 1>/dev/null 2>/dev/null";
        let mut command = Command::new("sh");
        command.args(["-c", line, "sh", "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"]);
        command.args(["--no-first-run", "--disable-background-networking", "--disable-component-update"]);
        command.args(["--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars", "--remote-debugging-pipe"]);
        command.arg(format!("--user-data-dir={}", profile.path().display()));
        command.arg(format!("--host-resolver-rules=MAP {REBOUND} 127.0.0.1"));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (to, out) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (told, from) = channel();
        std::thread::spawn(move || {
            for message in BufReader::new(out).split(0).map_while(Result::ok) {
                let _ = told.send(serde_json::from_slice(&message).unwrap());
            }
        });
        let session = String::new();
        let mut browser = Self { child, to, from, session, asked: 0, events: Vec::new(), _profile: profile };
        let target = browser.call("Target.createTarget", &json!({"url": "about:blank"}));
        let page = json!({"targetId": target["targetId"], "flatten": true});
        let attached = browser.call("Target.attachToTarget", &page);
        attached["sessionId"].as_str().unwrap().clone_into(&mut browser.session);
        for room in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{room}.enable"), &json!({}));
        }
        browser.size(width, height, false);
        browser
    }

    fn call(&mut self, method: &str, params: &Value) -> Value {
        self.asked += 1;
        let mut message = json!({"id": self.asked, "method": method, "params": params});
        if !self.session.is_empty() {
            message["sessionId"] = Value::from(self.session.as_str());
        }
        self.to.write_all(format!("{message}\0").as_bytes()).unwrap();
        loop {
            let mut told = self.from.recv_timeout(PATIENCE).expect("the browser answers");
            if told["id"] == self.asked {
                assert!(told["error"].is_null(), "{method}: {told}");
                return told["result"].take();
            }
            self.events.push(told);
        }
    }

    /// The size of what is seen, on a phone or not.
    pub(crate) fn size(&mut self, width: u32, height: u32, phone: bool) {
        let scale = if phone { 2 } else { 1 };
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": scale, "mobile": phone});
        self.call("Emulation.setDeviceMetricsOverride", &metrics);
    }

    /// What its user prefers.
    pub(crate) fn dark(&mut self, dark: bool) {
        let value = if dark { "dark" } else { "light" };
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": value}]});
        self.call("Emulation.setEmulatedMedia", &features);
    }

    /// Goes to an address.
    pub(crate) fn open(&mut self, url: &str) {
        let went = self.call("Page.navigate", &json!({"url": url}));
        assert!(went["errorText"].is_null(), "{url}: {went}");
    }

    /// What an expression is on the page.
    pub(crate) fn ask(&mut self, expression: &str) -> Value {
        let wanted = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let mut told = self.call("Runtime.evaluate", &wanted);
        assert!(told["exceptionDetails"].is_null(), "{expression}: {told}");
        told["result"]["value"].take()
    }

    /// Waits until an expression is true on the page.
    pub(crate) async fn shows(&mut self, expression: &str) {
        until(&format!("the page shows {expression}"), async || {
            // There is nothing to ask while it goes from one page to another.
            self.ask(&format!("(() => {{ try {{ return Boolean({expression}) }} catch {{ return false }} }})()"))
                == true
        })
        .await;
    }

    /// Presses a key: `Tab`, `Enter`, `Escape` or one character.
    pub(crate) fn press(&mut self, key: &str) {
        let (code, text) = match key {
            "Tab" => (9, ""),
            "Enter" => (13, "\r"),
            "Escape" => (27, ""),
            character => (0, character),
        };
        let down = json!({"type": "keyDown", "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text});
        self.call("Input.dispatchKeyEvent", &down);
        let up = json!({"type": "keyUp", "key": key, "code": key, "windowsVirtualKeyCode": code});
        self.call("Input.dispatchKeyEvent", &up);
    }

    /// Writes where the cursor is.
    pub(crate) fn write(&mut self, text: &str) {
        self.call("Input.insertText", &json!({"text": text}));
    }

    /// Saves what is seen, as PNG.
    pub(crate) fn picture(&mut self, path: &Path) {
        use openssl::base64::decode_block;
        let picture = self.call("Page.captureScreenshot", &json!({"format": "png"}));
        std::fs::write(path, decode_block(picture["data"].as_str().unwrap()).unwrap()).unwrap();
    }

    /// Errors on the console, exceptions, and requests to anything but this address, since the browser was started.
    pub(crate) fn faults(&mut self, origin: &str) -> Vec<String> {
        self.ask("0");
        let fault = |event: &Value| {
            let params = &event["params"];
            match event["method"].as_str()? {
                "Runtime.exceptionThrown" => Some(params["exceptionDetails"].to_string()),
                "Runtime.consoleAPICalled" if ["error", "warning", "assert"].contains(&params["type"].as_str()?) => {
                    Some(params["args"].to_string())
                }
                "Log.entryAdded" if ["error", "warning"].contains(&params["entry"]["level"].as_str()?) => {
                    Some(params["entry"].to_string())
                }
                "Network.requestWillBeSent" => {
                    let url = params["request"]["url"].as_str()?;
                    (!url.starts_with(origin)).then(|| format!("asks {url}"))
                }
                _ => None,
            }
        };
        self.events.iter().filter_map(fault).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.picture_of_failure();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Browser {
    /// What was seen when a test failed.
    fn picture_of_failure(&mut self) {
        let path = std::env::temp_dir().join(format!("outboxd-page-{}.png", std::process::id()));
        let seen = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.picture(&path)));
        eprintln!(
            "the page: {}",
            if seen.is_ok() { path.display().to_string() } else { "no picture of it".to_owned() }
        );
    }
}
