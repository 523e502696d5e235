//! Modules: directives, variables, functions.

use super::body;
use super::ir::{Function, Module, Param, Space, Variable};
use super::lexer::{Kind, Number, Token, tokens};
use super::names::Names;
use super::types::Type;
use super::{ParseError, cfg};

/// A walk over the tokens of a text.
pub struct Parser<'a> {
    tokens: Vec<Token<'a>>,
    at: usize,
    pub module: Module,
    pub names: Names<'a>,
}

/// A variable as it is declared.
pub struct Declared<'a> {
    pub name: &'a str,
    pub ty: Type,
    pub align: u32,
    pub size: u32,
}

pub fn module(text: &str) -> Result<Module, ParseError> {
    let mut parser = Parser {
        tokens: tokens(text)?,
        at: 0,
        module: Module::default(),
        names: Names::default(),
    };
    while parser.peek().kind != Kind::End {
        parser.directive()?;
    }
    let Parser { mut module, .. } = parser;
    for function in &mut module.functions {
        cfg::reconverge(&mut function.code);
    }
    super::layout::static_shared(&mut module);
    Ok(module)
}

impl<'a> Parser<'a> {
    pub fn peek(&self) -> Token<'a> {
        self.tokens[self.at]
    }

    pub fn next(&mut self) -> Token<'a> {
        let token = self.tokens[self.at];
        self.at = (self.at + 1).min(self.tokens.len() - 1);
        token
    }

    /// The token after the next.
    pub fn peek_second(&self) -> Token<'a> {
        self.tokens[(self.at + 1).min(self.tokens.len() - 1)]
    }

    pub fn take(&mut self, mark: u8) -> bool {
        let found = self.peek().is(mark);
        if found {
            self.next();
        }
        found
    }

    pub fn expect(&mut self, mark: u8) -> Result<(), ParseError> {
        let token = self.next();
        if token.is(mark) {
            Ok(())
        } else {
            Err(token.error(format!(
                "`{}` was expected before `{}`",
                char::from(mark),
                token.text
            )))
        }
    }

    pub fn word(&mut self) -> Result<&'a str, ParseError> {
        let token = self.next();
        match token.kind {
            Kind::Word => Ok(token.text),
            _ => Err(token.error(format!("a name was expected before `{}`", token.text))),
        }
    }

    /// A number, with its sign.
    pub fn number(&mut self) -> Result<Number, ParseError> {
        let negative = self.take(b'-');
        let token = self.next();
        let number = Number::of(token.text)
            .ok_or_else(|| token.error(format!("`{}` is no number", token.text)))?;
        Ok(match (number, negative) {
            (number, false) => number,
            (Number::Integer(value), true) => Number::Integer(value.wrapping_neg()),
            (Number::Single(bits), true) => Number::Single(bits ^ 1 << 31),
            (Number::Double(bits), true) => Number::Double(bits ^ 1 << 63),
        })
    }

    pub fn count(&mut self) -> Result<u32, ParseError> {
        let token = self.peek();
        match self.number()? {
            Number::Integer(value) if value <= u64::from(u32::MAX) => Ok(value as u32),
            _ => Err(token.error("a size was expected")),
        }
    }

    /// Passes over what stands on the line of `first`.
    pub fn skip_line(&mut self, first: Token) {
        while self.peek().kind != Kind::End && self.peek().line == first.line {
            self.next();
        }
    }

    /// Passes over everything up to a mark, and it.
    pub fn skip_past(&mut self, mark: u8) {
        while self.peek().kind != Kind::End && !self.next().is(mark) {}
    }

    fn directive(&mut self) -> Result<(), ParseError> {
        let token = self.next();
        match token.text {
            ".version" => {
                let text = self.next().text;
                let (major, minor) = text.split_once('.').unwrap_or((text, "0"));
                self.module.version = (major.parse().unwrap_or(0), minor.parse().unwrap_or(0));
            }
            ".target" => {
                let target = self.word()?;
                let digits = target
                    .trim_start_matches("sm_")
                    .trim_end_matches(char::is_alphabetic);
                self.module.target = digits
                    .parse()
                    .map_err(|_| token.error(format!("target `{target}`")))?;
                self.module.target_only = target.ends_with(char::is_alphabetic);
                self.names.target = (self.module.target, self.module.target_only);
                self.skip_line(token);
            }
            ".address_size" => {
                if self.count()? != 64 {
                    return Err(token.error("only 64-bit addresses are executed"));
                }
            }
            ".file" => self.skip_line(token),
            ".section" => self.skip_past(b'}'),
            ".pragma" => self.skip_past(b';'),
            ".visible" | ".weak" | ".common" => {}
            ".extern" => self.external()?,
            ".entry" => self.function(true)?,
            ".func" => self.function(false)?,
            ".global" => self.variable(Space::Global, false)?,
            ".const" => self.variable(Space::Const, false)?,
            ".shared" => self.variable(Space::Shared, false)?,
            other => return Err(token.error(format!("`{other}` is not known at this place"))),
        }
        Ok(())
    }

    fn external(&mut self) -> Result<(), ParseError> {
        let token = self.next();
        match token.text {
            ".entry" | ".func" => self.function(token.text == ".entry"),
            ".shared" => self.variable(Space::Shared, true),
            ".global" => self.variable(Space::Global, true),
            ".const" => self.variable(Space::Const, true),
            other => Err(token.error(format!("`.extern {other}` is not known"))),
        }
    }

    /// `.align 16 .b8 name[40]`, after the space.
    pub fn declared(&mut self) -> Result<Declared<'a>, ParseError> {
        let (mut align, mut ty, mut vector) = (0, None, 1);
        loop {
            let token = self.next();
            match token.text {
                ".align" => align = self.count()?,
                // What a pointer parameter points to.
                ".ptr" => {
                    while self.peek().text.starts_with('.') {
                        if self.next().text == ".align" {
                            self.count()?;
                        }
                    }
                }
                ".attribute" => self.skip_past(b')'),
                ".v2" => vector = 2,
                ".v4" => vector = 4,
                text if text.starts_with('.') => {
                    let named = Type::named(&text[1..]);
                    ty = Some(
                        named.ok_or_else(|| token.error(format!("type `{text}` is not known")))?,
                    );
                }
                name if token.kind == Kind::Word => {
                    let ty = ty.ok_or_else(|| token.error("a type was expected"))?;
                    return self.dimensions(name, ty, vector, align);
                }
                other => {
                    return Err(token.error(format!("a declaration was expected before `{other}`")));
                }
            }
        }
    }

    fn dimensions(
        &mut self,
        name: &'a str,
        ty: Type,
        vector: u32,
        align: u32,
    ) -> Result<Declared<'a>, ParseError> {
        let mut count = 1;
        while self.take(b'[') {
            if self.take(b']') {
                // The launch, or the initial value, says how many.
                count = 0;
            } else {
                count *= self.count()?;
                self.expect(b']')?;
            }
        }
        let element = ty.bytes() * vector;
        Ok(Declared {
            name,
            ty,
            align: align.max(element),
            size: count * element,
        })
    }

    /// A variable of the module, or a static one of a function.
    pub fn variable(&mut self, space: Space, external: bool) -> Result<(), ParseError> {
        let declared = self.declared()?;
        let mut variable = Variable {
            name: declared.name.into(),
            space,
            align: declared.align,
            size: declared.size,
            initial: Vec::new(),
            addresses: Vec::new(),
            external,
        };
        if self.take(b'=') {
            self.initial(&mut variable, declared.ty)?;
            variable.size = variable.size.max(variable.initial.len() as u32);
        }
        self.expect(b';')?;
        self.names
            .add_variable(declared.name, self.module.variables.len(), space);
        self.module.variables.push(variable);
        Ok(())
    }

    fn initial(&mut self, variable: &mut Variable, ty: Type) -> Result<(), ParseError> {
        if self.take(b'{') {
            while !self.take(b'}') {
                self.initial(variable, ty)?;
                self.take(b',');
            }
            return Ok(());
        }
        let token = self.peek();
        let bytes = ty.bytes() as usize;
        let mut bits = 0;
        if token.kind == Kind::Word {
            let mut name = self.word()?;
            if name == "generic" {
                self.expect(b'(')?;
                name = self.word()?;
                self.expect(b')')?;
            }
            let plus = if self.take(b'+') { self.count()? } else { 0 };
            if bytes != 8 {
                return Err(token.error("addresses in initial values must fill 64 bits"));
            }
            variable
                .addresses
                .push((variable.initial.len() as u32, name.into(), u64::from(plus)));
        } else {
            bits = match self.number()? {
                Number::Integer(bits) | Number::Double(bits) => bits,
                Number::Single(bits) => u64::from(bits),
            };
        }
        variable
            .initial
            .extend_from_slice(&bits.to_le_bytes()[..bytes]);
        Ok(())
    }

    fn function(&mut self, entry: bool) -> Result<(), ParseError> {
        self.names.start_function(entry);
        let mut function = Function {
            entry,
            ..Function::default()
        };
        if !entry && self.peek().is(b'(') {
            function.returns = self.params(false)?;
        }
        let name = self.word()?;
        function.name = name.into();
        if self.peek().is(b'(') {
            function.params = self.params(entry)?;
        }
        function.param_bytes = function
            .params
            .iter()
            .map(|p| p.offset + p.size)
            .max()
            .unwrap_or(0);
        self.performance(&mut function)?;
        let number = *self
            .names
            .functions
            .entry(name)
            .or_insert(self.module.functions.len());
        if number == self.module.functions.len() {
            self.module.functions.push(Function::default());
        }
        if self.take(b'{') {
            function.defined = true;
            body::parse(self, &mut function)?;
        } else {
            self.take(b';');
        }
        if function.defined || !self.module.functions[number].defined {
            self.module.functions[number] = function;
        }
        Ok(())
    }

    /// Of a kernel: offsets in its parameters. Of a function: offsets in its local memory.
    fn params(&mut self, entry: bool) -> Result<Vec<Param>, ParseError> {
        self.expect(b'(')?;
        let (mut params, mut end) = (Vec::new(), 0u32);
        while !self.take(b')') {
            let token = self.next();
            if token.text != ".param" {
                return Err(token.error(format!("parameters in `{}` are not executed", token.text)));
            }
            let declared = self.declared()?;
            let (size, align) = (declared.size, declared.align);
            let offset = if entry {
                let offset = end.next_multiple_of(align);
                self.names.declare_param(declared.name, offset);
                offset
            } else {
                self.names.declare_local(declared.name, size, align)
            };
            end = offset + size;
            params.push(Param {
                offset,
                size,
                align,
            });
            self.take(b',');
        }
        Ok(params)
    }

    /// Directives between the parameters and the body.
    fn performance(&mut self, function: &mut Function) -> Result<(), ParseError> {
        while self.peek().text.starts_with('.') {
            let token = self.next();
            let mut values = Vec::new();
            while self.peek().kind == Kind::Number || self.peek().is(b',') {
                if !self.take(b',') {
                    values.push(self.count()?)
                }
            }
            match token.text {
                ".maxntid" | ".reqntid" => function.max_threads = Some(values.iter().product()),
                ".maxnreg" => function.max_registers = values.first().copied(),
                ".minnctapersm" | ".maxnctapersm" | ".noreturn" => {}
                // Clusters of one block are what blocks are anyway.
                ".explicitcluster" => {}
                ".reqnctapercluster" if values.iter().all(|&n| n == 1) => {}
                ".pragma" => self.skip_past(b';'),
                other => {
                    return Err(
                        token.error(format!("`{other}` is not executed by the virtual GPU"))
                    );
                }
            }
        }
        Ok(())
    }
}
