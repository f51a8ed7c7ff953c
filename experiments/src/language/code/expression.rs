//! Evaluates the language of the generated tasks: a one-line function body, `return` and an expression of integers,
//! names, `+`, `-`, `*`, `//`, `%` and parentheses, with Python's meaning.

use std::iter::Peekable;
use std::str::Chars;

/// The value of `    return EXPRESSION` with the names `x`, `y`, ... standing for `arguments`.
///
/// # Errors
/// Text that Python would not run, or that is outside this language.
pub fn evaluate(body: &str, arguments: &[i64]) -> Result<i64, String> {
    let line = body.trim_end();
    let expression = line
        .strip_prefix("    return ")
        .ok_or_else(|| format!("'{line}' is not a line of '    return ' and an expression"))?;
    let mut reader = Reader {
        rest: expression.chars().peekable(),
        arguments,
        depth: 0,
    };
    let value = reader.sum()?;
    match reader.next() {
        None => Ok(value),
        Some(other) => Err(format!("unexpected '{other}' in '{expression}'")),
    }
}

/// Maximum nesting depth of parentheses and signs.
const DEEPEST: usize = 64;

struct Reader<'a> {
    rest: Peekable<Chars<'a>>,
    arguments: &'a [i64],
    depth: usize,
}

impl Reader<'_> {
    /// The next character that is not blank, without consuming it.
    fn next(&mut self) -> Option<char> {
        while self.rest.next_if(|c| *c == ' ').is_some() {}
        self.rest.peek().copied()
    }

    fn take(&mut self, wanted: char) -> bool {
        self.next() == Some(wanted) && self.rest.next().is_some()
    }

    fn sum(&mut self) -> Result<i64, String> {
        let mut value = self.product()?;
        loop {
            let result = match self.next() {
                Some('+') => {
                    self.rest.next();
                    value.checked_add(self.product()?)
                }
                Some('-') => {
                    self.rest.next();
                    value.checked_sub(self.product()?)
                }
                _ => return Ok(value),
            };
            value = result.ok_or(TOO_LARGE)?;
        }
    }

    fn product(&mut self) -> Result<i64, String> {
        let mut value = self.atom()?;
        loop {
            let sign = match self.next() {
                Some(sign @ ('*' | '/' | '%')) => sign,
                _ => return Ok(value),
            };
            self.rest.next();
            if sign == '/' && self.rest.next_if_eq(&'/').is_none() {
                return Err("'/' gives fractions; only '//' is known".into());
            }
            let other = self.atom()?;
            let result = match sign {
                '*' => value.checked_mul(other),
                _ if other == 0 => return Err("division by zero".into()),
                // Rounded down, as Python does.
                '/' => value.checked_div_euclid(other).map(|q| {
                    let exact = q * other == value;
                    if other < 0 && !exact { q - 1 } else { q }
                }),
                _ => value
                    .checked_rem_euclid(other)
                    .map(|r| if other < 0 && r != 0 { r + other } else { r }),
            };
            value = result.ok_or(TOO_LARGE)?;
        }
    }

    fn atom(&mut self) -> Result<i64, String> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err("too many parentheses".into());
        }
        let value = match self.next() {
            Some('(') => {
                self.rest.next();
                let value = self.sum()?;
                if !self.take(')') {
                    return Err("a parenthesis is not closed".into());
                }
                value
            }
            Some('-') => {
                self.rest.next();
                self.atom()?.checked_neg().ok_or(TOO_LARGE)?
            }
            Some(digit) if digit.is_ascii_digit() => self.number()?,
            Some(letter) if letter.is_ascii_alphabetic() => self.name()?,
            Some(other) => return Err(format!("unexpected '{other}'")),
            None => return Err("the expression ends too early".into()),
        };
        self.depth -= 1;
        Ok(value)
    }

    fn number(&mut self) -> Result<i64, String> {
        let mut digits = String::new();
        while let Some(digit) = self.rest.next_if(char::is_ascii_digit) {
            digits.push(digit);
        }
        if digits.len() > 1 && digits.starts_with('0') && digits.bytes().any(|digit| digit != b'0') {
            return Err(format!("'{digits}' begins with 0"));
        }
        digits.parse().map_err(|_| TOO_LARGE.into())
    }

    fn name(&mut self) -> Result<i64, String> {
        let mut name = String::new();
        while let Some(letter) = self.rest.next_if(|c| c.is_alphanumeric() || *c == '_') {
            name.push(letter);
        }
        let at = ["x", "y", "z"].iter().position(|known| *known == name);
        at.and_then(|at| self.arguments.get(at))
            .copied()
            .ok_or_else(|| format!("name '{name}' is not defined"))
    }
}

const TOO_LARGE: &str = "a number is beyond 64 bits";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_python_s() {
        let of = |expression: &str| evaluate(&format!("    return {expression}"), &[7]);
        for (expression, value) in [
            ("x + 3 * 2", 13),
            ("(x + 3) * 2 - -1", 21),
            ("x//2 % 2", 1),
            ("-x // 2", -4),
            ("x // -2", -4),
            ("-x % 3", 2),
            ("x % -3", -2),
            ("-6 // -3", 2),
            ("2-3-4", -5),
        ] {
            assert_eq!(of(expression), Ok(value), "{expression}");
        }
        for (expression, why) in [
            ("x / 2", "'//'"),
            ("x // 0", "zero"),
            ("x +", "too early"),
            ("(x", "not closed"),
            ("x x", "unexpected 'x'"),
            ("y", "'y' is not defined"),
            ("0123", "begins with 0"),
            ("9999999999 * 9999999999", "64 bits"),
        ] {
            assert!(
                of(expression).unwrap_err().contains(why),
                "{expression}: {:?}",
                of(expression)
            );
        }
        assert!(evaluate("return x", &[1]).is_err());
        assert!(evaluate(&format!("    return {}1", "(".repeat(100_000)), &[1]).is_err());
    }
}
