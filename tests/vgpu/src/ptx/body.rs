//! Bodies of functions: declarations, labels, instructions.

use super::ParseError;
use super::ir::{Function, Space};
use super::lexer::{Kind, Number, Token};
use super::names::Operand;
use super::parse::Parser;
use super::types::Type;
use crate::exec::code::{Address, Code, Instruction, PredicateUse, Source};
use crate::exec::decode::decode;
use crate::exec::flow::Call;
use crate::exec::products::Mention;
use crate::ptx::ir::Constant;

/// What follows the opening brace of `function`, to its closing one.
pub fn parse(parser: &mut Parser, function: &mut Function) -> Result<(), ParseError> {
    let start = parser.peek();
    let mut depth = 1;
    while depth > 0 {
        let token = parser.peek();
        match token.kind {
            Kind::Mark(b'{') => {
                parser.next();
                parser.names.open_scope();
                depth += 1;
            }
            Kind::Mark(b'}') => {
                parser.next();
                parser.names.close_scope();
                depth -= 1;
            }
            Kind::Mark(b';') => {
                parser.next();
            }
            Kind::Word if token.text.starts_with('.') => declaration(parser)?,
            Kind::Word if parser.peek_second().is(b':') => label(parser, function)?,
            Kind::Word | Kind::Mark(b'@') => instruction(parser, function)?,
            _ => return Err(token.error(format!("`{}` is not expected in a body", token.text))),
        }
    }
    finish(parser, function, start)
}

/// Resolves labels, and takes the numbers that were given to names.
fn finish(parser: &mut Parser, function: &mut Function, start: Token) -> Result<(), ParseError> {
    let names = &mut parser.names;
    names.resolve_labels().map_err(|name| {
        start.error(format!(
            "label `{name}` stands nowhere in `{}`",
            function.name
        ))
    })?;
    let place = |label: &mut u32| *label = names.label_places[*label as usize].unwrap_or(0);
    for instruction in &mut function.code {
        match &mut instruction.code {
            Code::Branch { to, .. } => place(to),
            Code::BranchTable { to, .. } => to.iter_mut().for_each(place),
            _ => {}
        }
    }
    function.code.push(Instruction {
        line: 0,
        guard: None,
        code: Code::Return,
    });
    let products = |i: &Instruction| matches!(i.code, Code::Wgmma(_));
    if !function.code.iter().any(products) {
        function.mentions = Vec::new();
    }
    function.register_count = names.registers;
    function.predicate_count = names.predicates;
    function.registers = names.register_bits / 32;
    function.local_bytes = names.local_bytes;
    function.constants = std::mem::take(&mut names.constants);
    function.specials = std::mem::take(&mut names.specials);
    function.calls = std::mem::take(&mut names.calls);
    Ok(())
}

fn label<'a>(parser: &mut Parser<'a>, function: &mut Function) -> Result<(), ParseError> {
    let name = parser.word()?;
    parser.expect(b':')?;
    if parser.peek().text == ".branchtargets" {
        parser.next();
        let mut list = Vec::new();
        while !parser.take(b';') {
            let target: &'a str = parser.word()?;
            list.push(parser.names.label(target));
            parser.take(b',');
        }
        parser.names.tables.insert(name, list);
        return Ok(());
    }
    let number = parser.names.label(name);
    parser.names.label_places[number as usize] = Some(function.code.len() as u32);
    Ok(())
}

fn declaration(parser: &mut Parser) -> Result<(), ParseError> {
    let token = parser.next();
    match token.text {
        ".loc" => parser.skip_line(token),
        ".pragma" => parser.skip_past(b';'),
        ".reg" => registers(parser)?,
        ".local" | ".param" => {
            let declared = parser.declared()?;
            parser
                .names
                .declare_local(declared.name, declared.size, declared.align);
            parser.expect(b';')?;
        }
        ".shared" => parser.variable(Space::Shared, false)?,
        ".global" => parser.variable(Space::Global, false)?,
        ".const" => parser.variable(Space::Const, false)?,
        other => return Err(token.error(format!("`{other}` is not executed by the virtual GPU"))),
    }
    Ok(())
}

fn registers(parser: &mut Parser) -> Result<(), ParseError> {
    let token = parser.next();
    let ty = token.text.strip_prefix('.').and_then(Type::named);
    let ty = ty.ok_or_else(|| token.error(format!("type `{}` is not known", token.text)))?;
    if ty.bits() > 64 {
        return Err(token.error("registers wider than 64 bits are not executed by the virtual GPU"));
    }
    while !parser.take(b';') {
        let name = parser.word()?;
        let mut count = None;
        if parser.take(b'<') {
            count = Some(parser.count()?);
            parser.expect(b'>')?;
        }
        parser.names.declare_registers(name, ty, count);
        parser.take(b',');
    }
    Ok(())
}

fn instruction(parser: &mut Parser, function: &mut Function) -> Result<(), ParseError> {
    let guard = guard(parser)?;
    let token = parser.next();
    let mut named = Vec::new();
    let code = match token.text.split('.').next() {
        Some("call") => call(parser, token)?,
        _ => {
            let operands = operands(parser)?;
            named = registers_of(&operands);
            decode(token.text, operands, &mut parser.names).map_err(|why| token.error(why))?
        }
    };
    // A product looks after its own registers.
    if matches!(code, Code::Wgmma(_)) {
        named.clear();
    }
    function.mentions.push(Mention(named.into()));
    function.code.push(Instruction {
        line: token.line,
        guard,
        code,
    });
    Ok(())
}

/// The registers that operands name.
fn registers_of(operands: &[Operand]) -> Vec<u32> {
    let mut list = Vec::new();
    for operand in operands {
        match operand {
            Operand::Register(reg) => list.push(reg.index),
            Operand::Address(address, _) => {
                list.extend(address.base.index().ok().map(|i| i as u32))
            }
            Operand::Vector(parts) => list.extend(registers_of(parts)),
            Operand::Pair(pair) => {
                let (a, b) = &**pair;
                list.extend(registers_of(&[a.clone(), b.clone()]));
            }
            _ => {}
        }
    }
    list
}

fn guard(parser: &mut Parser) -> Result<Option<PredicateUse>, ParseError> {
    if !parser.take(b'@') {
        return Ok(None);
    }
    let token = parser.peek();
    match operand(parser)? {
        Operand::Predicate(used) => Ok(Some(used)),
        _ => Err(token.error("a predicate register was expected")),
    }
}

fn operands<'a>(parser: &mut Parser<'a>) -> Result<Vec<Operand<'a>>, ParseError> {
    let mut list = Vec::new();
    while !parser.take(b';') {
        let first = operand(parser)?;
        list.push(if parser.take(b'|') {
            Operand::Pair(Box::new((first, operand(parser)?)))
        } else {
            first
        });
        if !parser.take(b',') {
            parser.expect(b';')?;
            break;
        }
    }
    Ok(list)
}

fn operand<'a>(parser: &mut Parser<'a>) -> Result<Operand<'a>, ParseError> {
    let token = parser.peek();
    match token.kind {
        Kind::Mark(b'{') => {
            parser.next();
            let mut list = Vec::new();
            while !parser.take(b'}') {
                list.push(operand(parser)?);
                parser.take(b',');
            }
            Ok(Operand::Vector(list))
        }
        Kind::Mark(b'[') => address(parser),
        Kind::Mark(b'!') => {
            parser.next();
            match operand(parser)? {
                Operand::Predicate(used) => Ok(Operand::Predicate(PredicateUse {
                    negated: !used.negated,
                    ..used
                })),
                _ => Err(token.error("a predicate register was expected after `!`")),
            }
        }
        Kind::Number | Kind::Mark(b'-') => Ok(match parser.number()? {
            Number::Integer(value) => Operand::Integer(value),
            Number::Single(bits) => Operand::Single(bits),
            Number::Double(bits) => Operand::Double(bits),
        }),
        _ => {
            let name = parser.word()?;
            let found = parser.names.operand(name);
            // A variable plus so many bytes, outside brackets.
            match found {
                Operand::Address(address, space) if parser.take(b'+') => {
                    let offset = u64::from(parser.count()?);
                    Ok(Operand::Address(Address { offset, ..address }, space))
                }
                found => Ok(found),
            }
        }
    }
}

/// `[base]`, `[base+8]`, `[base+-8]`, `[base-8]`, `[8]`; `[map, {c0, c1}]` is the address with its coordinates.
fn address<'a>(parser: &mut Parser<'a>) -> Result<Operand<'a>, ParseError> {
    parser.expect(b'[')?;
    let token = parser.peek();
    let (base, mut offset, space) = match operand(parser)? {
        Operand::Register(reg) => (Source::register(reg.index), 0, None),
        Operand::Address(Address { base, offset }, space) => (base, offset, space),
        Operand::Integer(value) => (parser.names.constant(Constant::Bits(value)), 0, None),
        other => return Err(token.error(format!("an address was expected, not {other:?}"))),
    };
    if parser.take(b'+') || parser.peek().is(b'-') {
        offset = match parser.number()? {
            Number::Integer(value) => value,
            _ => return Err(token.error("an offset must be a whole number")),
        };
    }
    let address = Operand::Address(Address { base, offset }, space);
    if parser.take(b',') {
        let coordinates = operand(parser)?;
        parser.expect(b']')?;
        return Ok(Operand::Pair(Box::new((address, coordinates))));
    }
    parser.expect(b']')?;
    Ok(address)
}

/// `call.uni (returned), function, (passed);` both lists optional.
fn call<'a>(parser: &mut Parser<'a>, token: Token) -> Result<Code, ParseError> {
    let returned = if parser.peek().is(b'(') {
        passed(parser)?
    } else {
        Vec::new()
    };
    parser.take(b',');
    let name: &'a str = parser.word()?;
    let mut arguments = Vec::new();
    while parser.take(b',') {
        if parser.peek().is(b'(') {
            arguments = passed(parser)?
        } else {
            return Err(token.error("indirect calls are not executed by the virtual GPU"));
        }
    }
    parser.expect(b';')?;
    let function = *parser.names.functions.get(name).ok_or_else(|| {
        token.error(format!(
            "function `{name}` is not declared; indirect calls are not executed"
        ))
    })?;
    parser.names.calls.push(function);
    Ok(Code::Call(Box::new(Call {
        function,
        arguments,
        returned,
    })))
}

/// Offsets in local memory of the variables in parentheses.
fn passed(parser: &mut Parser) -> Result<Vec<u32>, ParseError> {
    parser.expect(b'(')?;
    let mut list = Vec::new();
    while !parser.take(b')') {
        let token = parser.next();
        let offset = parser.names.local(token.text);
        list.push(
            offset
                .ok_or_else(|| token.error(format!("`{}` is no `.param` variable", token.text)))?,
        );
        parser.take(b',');
    }
    Ok(list)
}
