//! Facts of one source file that the rules judge: its imports, words, functions and lines.
//!
//! They come from tokens, not from a syntax tree: a path or a word counts the same in code, in an attribute and in the
//! body of a macro.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, Group, Ident, Literal, Spacing, TokenStream, TokenTree};

/// One source file.
pub struct Source {
    /// Path from the root of the repository.
    pub file: PathBuf,
    /// Module path; empty for the crate root. Meaningful under `src` only.
    pub module: Vec<String>,
    /// Number of lines.
    pub lines: usize,
    /// Whether the first line is a `//!` comment.
    pub documented: bool,
    pub imports: Vec<Import>,
    pub words: Vec<Word>,
    pub functions: Vec<Function>,
}

/// A path that starts with `crate`, `super`, `self` or in a `use` item, made absolute.
pub struct Import {
    pub line: usize,
    /// Module that contains the path.
    pub from: Vec<String>,
    /// Names after `crate`; empty where the path names or globs the crate root.
    pub to: Vec<String>,
}

/// Something that only some places may do.
pub struct Word {
    pub line: usize,
    pub kind: Kind,
    pub text: String,
    /// Whether it stands under `#[cfg(test)]`.
    pub in_test: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The keyword `unsafe`, wherever it stands.
    Unsafe,
    /// A printing macro, or a handle to stdout or stderr.
    Print,
}

/// A function with a body.
pub struct Function {
    pub name: String,
    /// Line of `fn`.
    pub first: usize,
    /// Line of the closing brace.
    pub last: usize,
}

/// Reads every file of a tree: path from the root of the repository, and text.
///
/// # Panics
/// If a text is not Rust.
pub fn read(texts: &BTreeMap<PathBuf, String>) -> Vec<Source> {
    texts
        .iter()
        .map(|(file, text)| Source::read(file, text))
        .collect()
}

impl Source {
    fn read(file: &Path, text: &str) -> Self {
        let tokens: TokenStream = text
            .parse()
            .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let module = module_of(file);
        let mut source = Self {
            file: file.into(),
            module: module.clone(),
            lines: text.lines().count(),
            documented: text.starts_with("//!"),
            imports: Vec::new(),
            words: Vec::new(),
            functions: Vec::new(),
        };
        let scope = Scope {
            module,
            in_test: false,
            in_attribute: false,
        };
        source.scan(tokens, &scope);
        source
    }

    fn scan(&mut self, tokens: TokenStream, scope: &Scope) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut test_follows = false;
        for (at, token) in tokens.iter().enumerate() {
            match token {
                TokenTree::Group(group) => {
                    let inner = scope.inside(&tokens, at, test_follows);
                    test_follows |= inner.in_attribute && is_cfg_test(group);
                    test_follows &= group.delimiter() != Delimiter::Brace;
                    // Braces of a `use` tree are read with the path before them, and documentation is no code.
                    let in_tree =
                        group.delimiter() == Delimiter::Brace && ends_with_separator(&tokens[..at]);
                    let documents = inner.in_attribute && starts_with(group, "doc");
                    if !in_tree && !documents {
                        self.scan(group.stream(), &inner);
                    }
                }
                TokenTree::Ident(ident) => {
                    self.add_import(&tokens, at, scope);
                    self.add_word(&tokens, at, ident, scope);
                    self.add_function(&tokens[at..], ident);
                }
                TokenTree::Punct(punct) => test_follows &= punct.as_char() != ';',
                TokenTree::Literal(literal) if scope.in_attribute => self.scan_text(literal, scope),
                TokenTree::Literal(_) => {}
            }
        }
    }

    /// Scans the code in a string of an attribute, such as `#[serde(with = "crate::units::bytes")]`.
    fn scan_text(&mut self, literal: &Literal, scope: &Scope) {
        let text = literal.to_string();
        let quoted = text
            .strip_prefix('"')
            .and_then(|text| text.strip_suffix('"'));
        // Prose need not be Rust.
        let code: TokenStream = quoted.unwrap_or_default().parse().unwrap_or_default();
        let at_literal = code.into_iter().map(|mut token| {
            token.set_span(literal.span());
            token
        });
        self.scan(at_literal.collect(), scope);
    }

    /// Adds the import that starts at `at`, if one does.
    fn add_import(&mut self, tokens: &[TokenTree], at: usize, scope: &Scope) {
        let (before, tree) = tokens.split_at(at);
        let is_path = starts_with_separator(&tree[1..]);
        let starts = match tree[0].to_string().as_str() {
            "crate" | "super" => is_path || is_word(tree.get(1), "as"),
            "self" => is_path,
            // Names of other crates start like this, too. Made absolute, they are in the module itself.
            _ => is_word(before.last(), "use"),
        };
        // `pub(in path)` says who may see an item, and imports nothing.
        let is_visibility = matches!(before, [word] if is_word(Some(word), "in"));
        if starts && !is_visibility && !ends_with_separator(before) {
            self.add_tree(tree, scope.module.clone(), scope);
        }
    }

    /// Adds what a `use` tree or a path imports, given the absolute path before it.
    fn add_tree(&mut self, mut tree: &[TokenTree], mut to: Vec<String>, scope: &Scope) {
        let Some(first) = tree.first() else { return };
        let mut line = first.span().start().line;
        loop {
            match tree.first() {
                Some(TokenTree::Ident(ident)) => {
                    line = ident.span().start().line;
                    match ident.to_string().as_str() {
                        "crate" => to.clear(),
                        "self" => {}
                        "super" => drop(to.pop()),
                        name => to.push(name.into()),
                    }
                }
                Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                    let trees: Vec<TokenTree> = group.stream().into_iter().collect();
                    for tree in trees.split(|token| is_punct(token, ',')) {
                        self.add_tree(tree, to.clone(), scope);
                    }
                    return;
                }
                _ => break,
            }
            tree = &tree[1..];
            if !starts_with_separator(tree) {
                break;
            }
            tree = &tree[2..];
        }
        let from = scope.module.clone();
        self.imports.push(Import { line, from, to });
    }

    fn add_word(&mut self, tokens: &[TokenTree], at: usize, ident: &Ident, scope: &Scope) {
        let after = tokens.get(at + 1);
        let text = ident.to_string();
        let kind = match text.as_str() {
            "unsafe" => Kind::Unsafe,
            "print" | "println" | "eprint" | "eprintln" | "dbg"
                if after.is_some_and(|token| is_punct(token, '!')) =>
            {
                Kind::Print
            }
            // Fields and methods of a child process have the same names.
            "stdout" | "stderr"
                if ends_with_separator(&tokens[..at])
                    || is_empty_call(after) && !ends_with_dot(&tokens[..at]) =>
            {
                Kind::Print
            }
            _ => return,
        };
        self.words.push(Word {
            line: ident.span().start().line,
            kind,
            text,
            in_test: scope.in_test,
        });
    }

    fn add_function(&mut self, tokens: &[TokenTree], ident: &Ident) {
        let name = match &tokens[1..] {
            _ if ident != "fn" => return,
            // The type of a function pointer has no name.
            [] | [TokenTree::Group(_), ..] => return,
            [dollar, name, ..] if is_punct(dollar, '$') => format!("${name}"),
            [name, ..] => name.to_string(),
        };
        let signature = tokens.iter().take_while(|token| !is_punct(token, ';'));
        let mut groups = signature.filter_map(group_of);
        if let Some(body) = groups.find(|group| group.delimiter() == Delimiter::Brace) {
            self.functions.push(Function {
                name,
                first: ident.span().start().line,
                last: body.span_close().end().line,
            });
        }
    }
}

/// Surroundings of the tokens of a group.
struct Scope {
    module: Vec<String>,
    in_test: bool,
    in_attribute: bool,
}

impl Scope {
    /// Scope of the group at `at`.
    fn inside(&self, tokens: &[TokenTree], at: usize, is_test: bool) -> Self {
        let mut module = self.module.clone();
        if let [.., keyword, TokenTree::Ident(name)] = &tokens[..at]
            && is_word(Some(keyword), "mod")
        {
            module.push(name.to_string());
        }
        let starts_attribute = match &tokens[..at] {
            [.., hash, bang] if is_punct(bang, '!') => is_punct(hash, '#'),
            [.., hash] => is_punct(hash, '#'),
            [] => false,
        };
        Self {
            module,
            in_test: self.in_test || is_test,
            in_attribute: self.in_attribute || starts_attribute,
        }
    }
}

/// Module path of a file under `src`.
fn module_of(file: &Path) -> Vec<String> {
    let path = file.with_extension("");
    let path = path.strip_prefix("src").unwrap_or(&path);
    let mut module: Vec<String> = path
        .iter()
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    let last = module.last().map(String::as_str);
    if last == Some("mod") || module.len() == 1 && matches!(last, Some("lib" | "main")) {
        module.pop();
    }
    module
}

fn starts_with_separator(tokens: &[TokenTree]) -> bool {
    matches!(tokens, [TokenTree::Punct(first), second, ..]
        if first.as_char() == ':' && first.spacing() == Spacing::Joint && is_punct(second, ':'))
}

fn ends_with_separator(tokens: &[TokenTree]) -> bool {
    tokens.len() >= 2 && starts_with_separator(&tokens[tokens.len() - 2..])
}

fn ends_with_dot(tokens: &[TokenTree]) -> bool {
    tokens.last().is_some_and(|token| is_punct(token, '.'))
}

fn is_empty_call(token: Option<&TokenTree>) -> bool {
    token.and_then(group_of).is_some_and(|group| {
        group.delimiter() == Delimiter::Parenthesis && group.stream().is_empty()
    })
}

fn is_punct(token: &TokenTree, character: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == character)
}

fn is_word(token: Option<&TokenTree>, word: &str) -> bool {
    matches!(token, Some(TokenTree::Ident(ident)) if ident == word)
}

fn group_of(token: &TokenTree) -> Option<&Group> {
    match token {
        TokenTree::Group(group) => Some(group),
        _ => None,
    }
}

fn is_cfg_test(attribute: &Group) -> bool {
    attribute.stream().to_string().replace(' ', "") == "cfg(test)"
}

fn starts_with(group: &Group, word: &str) -> bool {
    is_word(group.stream().into_iter().next().as_ref(), word)
}
