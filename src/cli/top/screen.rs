//! The terminal while `top` has it: its other screen, without a cursor, and keys as they are pressed. All of that is
//! undone when this is dropped.

use std::io::{self, Read as _, Stdout, Write as _};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::sync::mpsc;

/// The terminal, drawn on.
pub(super) struct Screen {
    stdout: Stdout,
    before: Termios,
}

impl Screen {
    /// Takes the terminal, and gives the keys that are pressed.
    pub fn open() -> io::Result<(Self, mpsc::Receiver<u8>)> {
        let stdin = io::stdin();
        let before = tcgetattr(&stdin)?;
        let mut raw = before.clone();
        raw.make_raw();
        let mut screen = Self { stdout: io::stdout(), before };
        tcsetattr(&stdin, OptionalActions::Flush, &raw)?;
        screen.write(ENTER)?;
        let (pressed, keys) = mpsc::channel(16);
        // It ends with the process: reading cannot be called back.
        std::thread::Builder::new().name("keys".into()).spawn(move || {
            for key in io::stdin().lock().bytes().map_while(Result::ok) {
                if pressed.blocking_send(key).is_err() {
                    return;
                }
            }
        })?;
        Ok((screen, keys))
    }

    /// Columns and rows.
    pub fn size(&self) -> (usize, usize) {
        let size = tcgetwinsize(&self.stdout).ok().filter(|size| size.ws_col > 0 && size.ws_row > 0);
        size.map_or((80, 24), |size| (size.ws_col.into(), size.ws_row.into()))
    }

    /// Shows these lines, which fit.
    pub fn draw(&mut self, lines: &[String]) -> io::Result<()> {
        let mut text = String::from(HOME);
        for (at, line) in lines.iter().enumerate() {
            text.push_str(if at == 0 { "" } else { "\r\n" });
            text.push_str(line);
            text.push_str(REST_OF_LINE);
        }
        text.push_str(REST_OF_SCREEN);
        self.write(&text)
    }

    fn write(&mut self, text: &str) -> io::Result<()> {
        self.stdout.write_all(text.as_bytes())?;
        self.stdout.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that is gone needs no tidying.
        let _ = self.write(LEAVE);
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.before);
    }
}

/// The other screen, no cursor.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
const HOME: &str = "\x1b[H";
const REST_OF_LINE: &str = "\x1b[K";
const REST_OF_SCREEN: &str = "\x1b[J";
