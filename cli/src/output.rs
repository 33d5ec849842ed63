//! Standard output is data, standard error is talk.
//!
//! Nothing that is printed for people or as JSON holds a control character from captured data: text is escaped when it
//! becomes a cell or a line ([`crate::escape`]), JSON when it is written, as `\uNNNN`, which means the same.

use std::{
    fmt::Write as _,
    io::{self, BufRead as _, IsTerminal as _, Write as _},
};

use anstream::{AutoStream, ColorChoice, adapter::strip_str};
use comfy_table::{
    Attribute, Cell, Color, ColumnConstraint, ContentArrangement, Row as TableRow, Table, Width, presets,
};
use serde::Serialize;
use serde_json::Value;

use crate::{args::Format, error::Error, escape};

/// Something that is a row of a table and a JSON object.
pub(crate) trait Row: Serialize {
    /// Headings of the table. A column that starts with `*` may be cut to the terminal's width.
    const COLUMNS: &'static [&'static str];
    /// Cells of the table, as many as there are headings; control characters are escaped by the table.
    fn cells(&self) -> Vec<Text>;
}

/// A cell or a piece of a line, with its colour.
pub(crate) struct Text {
    content: String,
    tone: Tone,
}

/// What a colour says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    Plain,
    Good,
    Notice,
    Bad,
    Faint,
}

impl Text {
    pub(crate) fn new(content: impl AsRef<str>, tone: Tone) -> Self {
        Self {
            content: escape::line(content.as_ref()).into_owned(),
            tone,
        }
    }

    pub(crate) fn plain(content: impl AsRef<str>) -> Self {
        Self::new(content, Tone::Plain)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.content.is_empty()
    }

    /// For a line of a stream; the escapes are dropped where colour is off.
    pub(crate) fn painted(&self) -> String {
        let code = match self.tone {
            Tone::Plain => return self.content.clone(),
            Tone::Good => "32",
            Tone::Notice => "33",
            Tone::Bad => "31",
            Tone::Faint => "2",
        };
        format!("\u{1b}[{code}m{}\u{1b}[0m", self.content)
    }

    fn cell(&self) -> Cell {
        let cell = Cell::new(&self.content);
        match self.tone {
            Tone::Plain => cell,
            Tone::Good => cell.fg(Color::DarkGreen),
            Tone::Notice => cell.fg(Color::DarkYellow),
            Tone::Bad => cell.fg(Color::DarkRed),
            Tone::Faint => cell.add_attribute(Attribute::Dim),
        }
    }
}

/// Standard output in the format that was asked for.
#[derive(Clone, Copy)]
pub(crate) struct Output {
    format: Format,
}

impl Output {
    pub(crate) fn new(format: Format) -> Self {
        Self { format }
    }

    /// Is it for people?
    pub(crate) fn is_table(self) -> bool {
        self.format == Format::Table
    }

    /// One object: its fields for people, one document otherwise.
    pub(crate) fn object<T: Serialize>(self, value: &T) -> Result<(), Error> {
        match self.format {
            Format::Table => write_out(&fields(&to_value(value)?)),
            Format::Json => write_out(&(json_pretty(value)? + "\n")),
            Format::Jsonl => write_json_line(value),
        }
    }

    /// What a change led to: nothing for people, who were told on standard error.
    pub(crate) fn changed<T: Serialize>(self, value: &T) -> Result<(), Error> {
        if self.is_table() { Ok(()) } else { self.object(value) }
    }

    /// One item of a stream: a line for people, else a line of JSON.
    pub(crate) fn item<T: Serialize>(self, value: &T, line: impl FnOnce() -> Vec<Text>) -> Result<(), Error> {
        if self.is_table() {
            write_line(&line())
        } else {
            write_json_line(value)
        }
    }

    /// Some objects: lines for people, else JSON as of a list.
    pub(crate) fn items<T: Serialize>(self, items: &[T], lines: impl Fn(&T) -> Vec<Vec<Text>>) -> Result<(), Error> {
        match self.format {
            Format::Table => items.iter().flat_map(lines).try_for_each(|line| write_line(&line)),
            Format::Json => write_out(&(json_pretty(&items)? + "\n")),
            Format::Jsonl => items.iter().try_for_each(write_json_line),
        }
    }

    /// A list that is written as its pages arrive.
    pub(crate) fn list<T: Row>(self) -> List<T> {
        List {
            output: self,
            rows: Vec::new(),
            written: 0,
        }
    }
}

/// A list on its way out: JSON at once, a table at the end, when its widths are known.
pub(crate) struct List<T> {
    output: Output,
    rows: Vec<T>,
    written: usize,
}

impl<T: Row> List<T> {
    /// Adds an item.
    pub(crate) fn push(&mut self, item: T) -> Result<(), Error> {
        match self.output.format {
            Format::Table => self.rows.push(item),
            Format::Jsonl => write_json_line(&item)?,
            Format::Json => {
                let lead = if self.written == 0 { "[\n  " } else { ",\n  " };
                write_out(&format!("{lead}{}", json_pretty(&item)?.replace('\n', "\n  ")))?;
            }
        }
        self.written += 1;
        Ok(())
    }

    /// Ends it. `empty` tells people what to do about an empty list.
    pub(crate) fn finish(self, empty: &str) -> Result<(), Error> {
        match self.output.format {
            Format::Table if self.rows.is_empty() => talk(empty),
            Format::Table => write_out(&table(&self.rows))?,
            Format::Json if self.written == 0 => write_out("[]\n")?,
            Format::Json => write_out("\n]\n")?,
            Format::Jsonl => {}
        }
        Ok(())
    }
}

/// Writes to standard output at once; a reader that went away is an error of its own kind.
pub(crate) fn write_out(text: &str) -> Result<(), Error> {
    let mut out = anstream::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// A line for people.
pub(crate) fn write_line(pieces: &[Text]) -> Result<(), Error> {
    let mut line: String = pieces.iter().map(Text::painted).collect();
    line.push('\n');
    write_out(&line)
}

/// Writes bytes as they are.
pub(crate) fn write_bytes(bytes: &[u8]) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    Ok(out.flush()?)
}

/// A line on standard error, in one write: several programs may share it.
pub(crate) fn talk(text: &str) {
    let mut line = match AutoStream::choice(&io::stderr()) {
        ColorChoice::Never => strip_str(text).to_string(),
        _ => text.to_owned(),
    };
    line.push('\n');
    let _ = io::stderr().write_all(line.as_bytes());
}

/// An error on standard error.
pub(crate) fn talk_error(text: &str) {
    let head = Text::new("error:", Tone::Bad).painted();
    talk(&format!("{head} {}", escape::text(text)));
}

/// Asks on a terminal; without one the command line was the answer.
pub(crate) fn confirm(question: &str) -> Result<bool, Error> {
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        return Ok(true);
    }
    let mut err = anstream::stderr();
    write!(err, "{} [y/N] ", escape::line(question))?;
    err.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn to_value<T: Serialize>(value: &T) -> Result<Value, Error> {
    serde_json::to_value(value).map_err(|error| Error::Io(error.into()))
}

fn write_json_line<T: Serialize>(value: &T) -> Result<(), Error> {
    let json = serde_json::to_string(value).map_err(|error| Error::Io(error.into()))?;
    write_out(&(inert(&json) + "\n"))
}

fn json_pretty<T: Serialize>(value: &T) -> Result<String, Error> {
    serde_json::to_string_pretty(value)
        .map(|json| inert(&json))
        .map_err(|error| Error::Io(error.into()))
}

/// Replaces what serde_json leaves as it is and a terminal may act on. Such characters occur inside strings only.
fn inert(json: &str) -> String {
    let harmful = |c: char| c != '\n' && escape::is_harmful(c);
    if !json.chars().any(harmful) {
        return json.to_owned();
    }
    let mut out = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if harmful(c) {
            let _ = write!(out, "\\u{:04x}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    out
}

/// `name  value` lines of an object.
fn fields(value: &Value) -> String {
    let Value::Object(map) = value else {
        return format!("{}\n", escape::line(&plain(value)));
    };
    let width = map.keys().map(String::len).max().unwrap_or(0);
    let mut out = String::new();
    for (name, value) in map {
        let _ = writeln!(out, "{name:width$}  {}", escape::line(&plain(value)));
    }
    out
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Bool(yes) => if *yes { "yes" } else { "no" }.to_owned(),
        Value::Array(items) if items.is_empty() => "-".to_owned(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(", "),
        Value::Object(fields) => {
            let fields = fields.iter().map(|(name, value)| format!("{name} {}", plain(value)));
            fields.collect::<Vec<_>>().join(" ")
        }
        Value::Number(number) => number.to_string(),
    }
}

/// Blanks between columns.
const PADDING: u16 = 2;
/// Characters that are left of a column that is cut, however narrow the terminal.
const CUT_TO_AT_LEAST: u16 = 24;

fn table<T: Row>(rows: &[T]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_truncation_indicator("…");
    table.set_header(T::COLUMNS.iter().map(|name| Cell::new(name.trim_start_matches('*'))));
    for row in rows {
        let mut cells = TableRow::from(row.cells().iter().map(Text::cell).collect::<Vec<_>>());
        cells.max_height(1);
        table.add_row(cells);
    }
    // Without a terminal nothing is cut, so that what is piped is whole.
    let contents = table.column_max_content_widths();
    match table.width() {
        Some(width) if io::stdout().is_terminal() => {
            table
                .set_width(width)
                .set_content_arrangement(ContentArrangement::Dynamic);
        }
        _ => {
            table.set_content_arrangement(ContentArrangement::Disabled);
        }
    }
    for ((column, name), content) in table.column_iter_mut().zip(T::COLUMNS).zip(contents) {
        column.set_padding((0, PADDING));
        column.set_constraint(if name.starts_with('*') {
            ColumnConstraint::LowerBoundary(Width::Fixed(content.min(CUT_TO_AT_LEAST) + PADDING))
        } else {
            ColumnConstraint::ContentWidth
        });
    }
    if AutoStream::choice(&io::stdout()) == ColorChoice::Never {
        table.force_no_tty();
    } else {
        table.enforce_styling();
    }
    table.trim_fmt() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Thing {
        name: String,
    }

    impl Row for Thing {
        const COLUMNS: &'static [&'static str] = &["*NAME"];
        fn cells(&self) -> Vec<Text> {
            vec![Text::plain(&self.name)]
        }
    }

    #[test]
    fn json_holds_no_control_character_and_means_the_same() {
        let thing = Thing {
            name: "a\u{1b}\u{7f}\u{9b}\u{202e}ä\n".into(),
        };
        let json = json_pretty(&thing).unwrap();
        assert!(!json.chars().any(|c| c != '\n' && escape::is_harmful(c)), "{json}");
        assert_eq!(serde_json::from_str::<Value>(&json).unwrap()["name"], thing.name);
    }

    #[test]
    fn tables_hold_no_escape_from_data() {
        let text = table(&[Thing {
            name: "a\u{1b}[31m".into(),
        }]);
        assert!(text.contains("a\\x1b[31m") && !text.contains('\u{1b}'), "{text:?}");
    }

    #[test]
    fn fields_are_lines() {
        assert_eq!(
            fields(&serde_json::json!({"a": null, "long": ["x", "y"]})),
            "a     -\nlong  x, y\n"
        );
    }
}
