//! Finds the possible mutants of a source by a walk over its syntax.
//!
//! Left out are: code that only tests compile, `const` contexts (no switch is possible there), patterns, the
//! arguments of macros, and formatting (`fmt`), on which no promise depends.

use std::ops::Range;

use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{BinOp, Expr, ImplItemFn, ItemFn, Lit, Pat, ReturnType, Stmt, Type, UnOp};

/// A place, and its possible mutants.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    /// The range of bytes that it replaces.
    pub(crate) range: Range<usize>,
    /// The way of the replacement.
    pub(crate) shape: Shape,
    /// The replacements, one for each mutant.
    pub(crate) instead: Vec<String>,
    /// The name of the function around it.
    pub(crate) function: String,
}

/// The way in which a place is rewritten.
#[derive(Clone, Debug)]
pub(crate) enum Shape {
    /// `a op b`, with the range of the operator.
    Binary(Range<usize>),
    /// `!a`: the operator is left out.
    Not(Range<usize>),
    /// An expression is replaced by another one.
    Value,
    /// A statement is left out.
    Statement,
    /// A function returns this value at once; the place is just after its `{`.
    Body,
}

/// Returns all sites of a source, in the order of their positions.
pub(crate) fn of(text: &str) -> syn::Result<Vec<Site>> {
    let file = syn::parse_file(text)?;
    let mut walk = Walk { text, sites: Vec::new(), function: Vec::new() };
    walk.visit_file(&file);
    walk.sites.sort_by_key(|site| (site.range.start, std::cmp::Reverse(site.range.end)));
    Ok(walk.sites)
}

struct Walk<'a> {
    text: &'a str,
    sites: Vec<Site>,
    function: Vec<String>,
}

impl Walk<'_> {
    fn add(&mut self, range: Range<usize>, shape: Shape, instead: Vec<String>) {
        if !instead.is_empty() && !self.function.is_empty() {
            let function = self.function.join("::");
            self.sites.push(Site { range, shape, instead, function });
        }
    }

    fn body(&mut self, signature: &syn::Signature, block: &syn::Block) {
        if signature.constness.is_some() {
            return;
        }
        let instead = match &signature.output {
            ReturnType::Default => vec!["()"],
            ReturnType::Type(_, of) => values_of(of),
        };
        let at = block.brace_token.span.open().byte_range().end;
        if !block.stmts.is_empty() {
            self.add(at..at, Shape::Body, instead.into_iter().map(str::to_owned).collect());
        }
    }
}

/// Returns plausible values of a type, by its name.
fn values_of(of: &Type) -> Vec<&'static str> {
    let Type::Path(path) = of else { return Vec::new() };
    let Some(last) = path.path.segments.last() else { return Vec::new() };
    match last.ident.to_string().as_str() {
        "bool" => vec!["true", "false"],
        "u8" | "u16" | "u32" | "u64" | "usize" | "i64" => vec!["0", "1"],
        "Option" => vec!["None"],
        "Vec" | "String" | "BTreeMap" | "BTreeSet" | "VecDeque" => vec!["Default::default()"],
        "Op" => vec!["Op(0)", "Op(1)"],
        "Duration" => vec!["Duration::ZERO"],
        _ => Vec::new(),
    }
}

fn only_for_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("test")
            || attribute.path().is_ident("cfg")
                && attribute.parse_args::<syn::Ident>().is_ok_and(|name| name == "test")
    })
}

/// Returns the operators that may replace an operator.
fn other_operators(op: &BinOp) -> &'static [&'static str] {
    match op {
        BinOp::Lt(_) => &["<=", ">"],
        BinOp::Le(_) => &["<", ">"],
        BinOp::Gt(_) => &[">=", "<"],
        BinOp::Ge(_) => &[">", "<"],
        BinOp::Eq(_) => &["!="],
        BinOp::Ne(_) => &["=="],
        BinOp::And(_) => &["||"],
        BinOp::Or(_) => &["&&"],
        BinOp::Add(_) => &["-"],
        BinOp::Sub(_) => &["+"],
        BinOp::Mul(_) => &["+"],
        BinOp::Div(_) => &["*"],
        BinOp::Rem(_) => &["/"],
        BinOp::AddAssign(_) => &["-="],
        BinOp::SubAssign(_) => &["+="],
        _ => &[],
    }
}

/// Returns true if a condition binds names, so that it can only be an operand of `&&`.
fn binds(expression: &Expr) -> bool {
    match expression {
        Expr::Let(_) => true,
        Expr::Binary(binary) => binds(&binary.left) || binds(&binary.right),
        _ => false,
    }
}

fn is_left_out_whole(expression: &Expr) -> bool {
    matches!(expression, Expr::Assign(_) | Expr::MethodCall(_) | Expr::Call(_))
}

impl<'ast> Visit<'ast> for Walk<'_> {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !only_for_tests(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        let printed = item.trait_.as_ref().and_then(|(_, path, _)| path.segments.last());
        let printed = printed.is_some_and(|last| last.ident == "Display" || last.ident == "Debug");
        if !only_for_tests(&item.attrs) && !printed {
            visit::visit_item_impl(self, item);
        }
    }

    fn visit_item_fn(&mut self, item: &'ast ItemFn) {
        if only_for_tests(&item.attrs) || item.sig.constness.is_some() {
            return;
        }
        self.function.push(item.sig.ident.to_string());
        self.body(&item.sig, &item.block);
        visit::visit_block(self, &item.block);
        self.function.pop();
    }

    fn visit_impl_item_fn(&mut self, item: &'ast ImplItemFn) {
        if only_for_tests(&item.attrs) || item.sig.constness.is_some() {
            return;
        }
        self.function.push(item.sig.ident.to_string());
        self.body(&item.sig, &item.block);
        visit::visit_block(self, &item.block);
        self.function.pop();
    }

    // No switch is possible in a constant, a type or a pattern.
    fn visit_item_const(&mut self, _: &'ast syn::ItemConst) {}
    fn visit_item_static(&mut self, _: &'ast syn::ItemStatic) {}
    fn visit_impl_item_const(&mut self, _: &'ast syn::ImplItemConst) {}
    fn visit_type(&mut self, _: &'ast Type) {}
    fn visit_pat(&mut self, _: &'ast Pat) {}
    fn visit_attribute(&mut self, _: &'ast syn::Attribute) {}
    fn visit_expr_const(&mut self, _: &'ast syn::ExprConst) {}
    fn visit_macro(&mut self, _: &'ast syn::Macro) {}
    // The length of the array is a constant.
    fn visit_expr_repeat(&mut self, repeat: &'ast syn::ExprRepeat) {
        self.visit_expr(&repeat.expr);
    }

    fn visit_stmt(&mut self, statement: &'ast Stmt) {
        if let Stmt::Expr(expression, Some(_)) = statement
            && is_left_out_whole(expression)
        {
            self.add(statement.span().byte_range(), Shape::Statement, vec!["(left out)".to_owned()]);
        }
        visit::visit_stmt(self, statement);
    }

    fn visit_arm(&mut self, arm: &'ast syn::Arm) {
        if let Some((_, guard)) = &arm.guard
            && !binds(guard)
        {
            let instead = vec!["true".to_owned(), "false".to_owned()];
            self.add(guard.span().byte_range(), Shape::Value, instead);
        }
        visit::visit_arm(self, arm);
    }

    fn visit_expr(&mut self, expression: &'ast Expr) {
        let range = expression.span().byte_range();
        match expression {
            Expr::Binary(binary) if !binds(expression) => {
                let instead = other_operators(&binary.op).iter().map(|op| (*op).to_owned()).collect();
                self.add(range, Shape::Binary(binary.op.span().byte_range()), instead);
            }
            Expr::Unary(unary) if matches!(unary.op, UnOp::Not(_)) => {
                let op = unary.op.span().byte_range();
                self.add(range, Shape::Not(op), vec!["(no !)".to_owned()]);
            }
            Expr::Lit(literal) => {
                if let Lit::Int(number) = &literal.lit
                    && let Ok(value) = number.base10_parse::<u64>()
                    && value < u64::from(u32::MAX)
                {
                    let other = format!("{}{}", value + 1, number.suffix());
                    self.add(range, Shape::Value, vec![other]);
                }
            }
            Expr::Macro(call) if call.mac.path.is_ident("matches") => {
                let instead = format!("!{}", &self.text[range.clone()]);
                self.add(range, Shape::Value, vec![instead]);
            }
            _ => {}
        }
        visit::visit_expr(self, expression);
    }
}
