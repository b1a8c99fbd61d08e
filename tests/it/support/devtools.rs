//! A Chromium that is driven: the DevTools protocol over two pipes, for pages that are looked at from outside. What the page
//! complains of is collected.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::thread;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::browser::Browser;
use super::wait::{eventually, within};

/// A page in a browser of its own.
pub struct Page {
    to: File,
    from: mpsc::UnboundedReceiver<Value>,
    session: Value,
    asked: u64,
    complaints: Vec<String>,
    _browser: Browser,
}

impl Page {
    /// Opens `url`.
    pub async fn open(url: &str) -> Self {
        let (browser, home) = Browser::driven(["to", "from"]);
        // Opened for both, so that it does not wait for the other side.
        let to =
            File::options().read(true).write(true).open(home.join("to")).expect("the pipe to the browser");
        let (sender, from) = mpsc::unbounded_channel();
        thread::spawn(move || read(&home.join("from"), &sender));
        let complaints = Vec::new();
        let mut page = Self { to, from, session: Value::Null, asked: 0, complaints, _browser: browser };
        let targets = page.call("Target.getTargets", json!({})).await;
        let mut targets = targets["targetInfos"].as_array().expect("targets").iter();
        let target = targets.find(|target| target["type"] == "page").expect("a page")["targetId"].clone();
        let attached =
            page.call("Target.attachToTarget", json!({ "targetId": target, "flatten": true })).await;
        page.session = attached["sessionId"].clone();
        for domain in ["Page", "Runtime", "Log"] {
            page.call(&format!("{domain}.enable"), json!({})).await;
        }
        page.go(url).await;
        page
    }

    /// Goes to `url`.
    pub async fn go(&mut self, url: &str) {
        let gone = self.call("Page.navigate", json!({ "url": url })).await;
        assert!(gone["errorText"].is_null(), "{url}: {gone}");
    }

    /// The value of a JavaScript expression, as JSON has it.
    pub async fn eval(&mut self, expression: &str) -> Value {
        self.try_eval(expression).await.unwrap_or_else(|thrown| panic!("{expression}: {thrown}"))
    }

    async fn try_eval(&mut self, expression: &str) -> Result<Value, Value> {
        let asked = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let answer = self.call("Runtime.evaluate", asked).await;
        let thrown = &answer["exceptionDetails"];
        if thrown.is_null() { Ok(answer["result"]["value"].clone()) } else { Err(thrown.clone()) }
    }

    /// Waits until an expression is `true`; until then it is what is seen in its place, or fails, as before the page is
    /// there.
    pub async fn until(&mut self, what: &str, expression: &str) {
        eventually(what, async || match self.try_eval(expression).await {
            Ok(Value::Bool(true)) => Ok(()),
            Ok(seen) | Err(seen) => Err(seen),
        })
        .await;
    }

    /// The window's size, and the colours that the user likes.
    pub async fn emulate(&mut self, (width, height): (u32, u32), scheme: &str) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", size).await;
        // They would be on the screen and not in the picture.
        self.call("Emulation.setScrollbarsHidden", json!({ "hidden": true })).await;
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.call("Emulation.setEmulatedMedia", json!({ "features": features })).await;
    }

    /// Presses the key that moves the focus on.
    pub async fn press_tab(&mut self) {
        for kind in ["rawKeyDown", "keyUp"] {
            let key = json!({ "type": kind, "key": "Tab", "code": "Tab", "windowsVirtualKeyCode": 9 });
            self.call("Input.dispatchKeyEvent", key).await;
        }
    }

    /// A picture of the whole page, as PNG.
    pub async fn screenshot(&mut self) -> Vec<u8> {
        let shot = self.call("Page.captureScreenshot", json!({ "captureBeyondViewport": true })).await;
        BASE64_STANDARD.decode(shot["data"].as_str().expect("a picture")).expect("base64")
    }

    /// What the page has complained of so far: errors and warnings, of its scripts or of the browser about them.
    pub async fn complaints(&mut self) -> &[String] {
        // An answer that comes now comes after what was complained of before.
        self.eval("0").await;
        &self.complaints
    }

    async fn call(&mut self, method: &str, params: Value) -> Value {
        self.asked += 1;
        let mut message = json!({ "id": self.asked, "method": method, "params": params });
        if self.session.is_string() {
            message["sessionId"] = self.session.clone();
        }
        self.to.write_all(format!("{message}\0").as_bytes()).expect("tell the browser");
        let what = format!("the browser's answer to {method}");
        within(&what, async {
            loop {
                let said = self.from.recv().await.expect("the browser has ended");
                if said["id"] == self.asked {
                    assert!(said["error"].is_null(), "{method}: {said}");
                    return said["result"].clone();
                }
                self.note(&said);
            }
        })
        .await
    }

    fn note(&mut self, said: &Value) {
        let params = &said["params"];
        let is_bad = |level: &Value| matches!(level.as_str(), Some("error" | "warning" | "assert"));
        let complaint = match said["method"].as_str() {
            Some("Runtime.exceptionThrown") => true,
            Some("Runtime.consoleAPICalled") => is_bad(&params["type"]),
            Some("Log.entryAdded") => is_bad(&params["entry"]["level"]),
            _ => false,
        };
        if complaint {
            self.complaints.push(params.to_string());
        }
    }
}

/// Reads messages, each ended by a zero, until the browser ends.
fn read(pipe: &Path, sender: &mpsc::UnboundedSender<Value>) {
    let pipe = File::open(pipe).expect("the pipe from the browser");
    for message in BufReader::new(pipe).split(0).map_while(Result::ok) {
        let message = serde_json::from_slice(&message).expect("the browser speaks JSON");
        if sender.send(message).is_err() {
            return;
        }
    }
}
