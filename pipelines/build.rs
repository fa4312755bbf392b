//! Compiles `pipelines/udfs/*.rs` into the binary, as they lie.
//!
//! The same files go to Arroyo's compiler service, which takes one `#[udf]` function a file. Here each
//! file is checked for that form, becomes a module without the two lines that only Arroyo's plugin
//! understands, and is registered as a SQL function under the same name with the same null rules:
//! a NULL for an argument that is no `Option` gives NULL without a call.
//!
//! ```text
//! OUT_DIR/udfs/<name>.rs     the file, line by line
//! OUT_DIR/udfs.rs            the modules, and name and text of every file (src/udfs.rs)
//! OUT_DIR/udf_functions.rs   the registrations (src/sql/functions/udf_files.rs)
//! ```
//!
//! Invariant: the order is that of the names, so the same files give the same bytes.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::exit;

use syn::{FnArg, GenericArgument, Item, ItemFn, PathArguments, ReturnType, Type};

const FOLDER: &str = "pipelines/udfs";
const PLUGIN_LINE: &str = "use arroyo_udf_plugin::udf;";
const MARK_LINE: &str = "#[udf]";
/// A panic in a function ends Arroyo's worker, again and again: these stand in tests alone.
const PANICS: [&str; 8] = [
    ".unwrap()",
    ".expect(",
    "panic!(",
    "unreachable!(",
    "todo!(",
    "unimplemented!(",
    "assert",
    "unsafe",
];

fn main() {
    println!("cargo::rerun-if-changed={FOLDER}");
    println!("cargo::rerun-if-changed=pipelines/build.rs");
    println!("cargo::rerun-if-changed=Cargo.toml");
    if let Err(complaint) = generate() {
        println!("cargo::error={complaint}");
        exit(1);
    }
}

fn generate() -> Result<(), String> {
    // Cargo tells a build script by the environment where to write.
    #[allow(clippy::disallowed_methods)]
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("OUT_DIR is not set; run this with cargo")?);
    let manifest = read(Path::new("Cargo.toml"))?;
    let entries = std::fs::read_dir(FOLDER).map_err(|error| format!("cannot read {FOLDER}: {error}"))?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "rs"));
    paths.sort();
    let mut functions = Vec::new();
    let mut modules = String::new();
    let mut texts = String::new();
    for path in &paths {
        let text = read(path)?;
        let function = check(path, &text, &manifest).map_err(|complaint| format!("{}: {complaint}", path.display()))?;
        let module = out.join("udfs").join(format!("{}.rs", function.name));
        write(&module, &as_module(&text))?;
        let _ = writeln!(modules, "#[path = {module:?}]\npub mod {};", function.name);
        // From where the crate lies when it is compiled: a target folder may be used from several clones.
        let file = format!("/{}", path.display());
        let _ = writeln!(
            texts,
            "    ({:?}, include_str!(concat!(env!(\"CARGO_MANIFEST_DIR\"), {file:?}))),",
            function.name
        );
        functions.push(function);
    }
    let list = format!(
        "/// Name and text of every file.\npub const TEXTS: [(&str, &str); {}] = [\n{texts}];\n",
        functions.len()
    );
    write(&out.join("udfs.rs"), &format!("{modules}\n{list}"))?;
    write(&out.join("udf_functions.rs"), &registrations(&functions))
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    let folder = path.parent().unwrap_or(path);
    std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(path, text))
        .map_err(|error| format!("cannot write {}: {error}", path.display()))
}

/// The file with the same line numbers: the plugin's line goes, the mark becomes the visibility.
fn as_module(text: &str) -> String {
    let line = |line: &str| match line {
        PLUGIN_LINE => String::new(),
        MARK_LINE => "pub(crate)".to_string(),
        line => line.to_string(),
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n") + "\n"
}

// ---- the form ----

#[derive(Clone, Copy, PartialEq)]
enum Scalar {
    Bigint,
    Double,
    Text,
    Bytea,
}

#[derive(Clone, Copy)]
struct Argument {
    scalar: Scalar,
    /// It takes NULLs itself.
    is_option: bool,
}

struct Function {
    name: String,
    arguments: Vec<Argument>,
    is_aggregate: bool,
    result: Scalar,
    /// It may answer NULL.
    may_be_null: bool,
}

fn check(path: &Path, text: &str, manifest: &str) -> Result<Function, String> {
    let file = syn::parse_file(text).map_err(|error| format!("it is no Rust: {error}"))?;
    let marked: Vec<&ItemFn> = file.items.iter().filter_map(marked_function).collect();
    let [item] = marked[..] else {
        return Err(format!("{} functions are marked #[udf]; Arroyo takes one a file", marked.len()));
    };
    let name = item.sig.ident.to_string();
    if path.file_stem().is_none_or(|stem| stem.to_string_lossy() != name) {
        return Err(format!("the function is called {name}; name the file after it"));
    }
    for (line, times) in [(PLUGIN_LINE, 1), (MARK_LINE, 1)] {
        if text.lines().filter(|found| *found == line).count() != times {
            return Err(format!("the line `{line}` must stand in it once, alone"));
        }
    }
    if !matches!(item.vis, syn::Visibility::Inherited) || item.sig.asyncness.is_some() || !item.sig.generics.params.is_empty() {
        return Err("write a plain `fn`, neither pub nor async nor generic".to_string());
    }
    never_panics(text)?;
    dependencies_are_ours(text, manifest)?;
    shape(name, item)
}

fn marked_function(item: &Item) -> Option<&ItemFn> {
    match item {
        Item::Fn(item) if item.attrs.iter().any(|attribute| attribute.path().is_ident("udf")) => Some(item),
        _ => None,
    }
}

fn never_panics(text: &str) -> Result<(), String> {
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    for (at, line) in code.lines().enumerate() {
        let line = line.split("//").next().unwrap_or_default();
        if let Some(word) = PANICS.iter().find(|word| line.contains(**word)) {
            return Err(format!("line {}: `{word}` may end Arroyo's worker; answer None instead", at + 1));
        }
    }
    Ok(())
}

/// Each line of the dependency block is a line of our own manifest: one version of a rule.
fn dependencies_are_ours(text: &str, manifest: &str) -> Result<(), String> {
    let Some((_, behind)) = text.split_once("/*\n[dependencies]\n") else {
        return Ok(());
    };
    let block = behind.split("*/").next().unwrap_or_default();
    for line in block.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if !manifest.lines().any(|ours| ours == line) {
            return Err(format!("the dependency `{line}` does not stand like this in Cargo.toml"));
        }
    }
    Ok(())
}

fn shape(name: String, item: &ItemFn) -> Result<Function, String> {
    let mut arguments = Vec::new();
    let mut vectors = 0;
    for argument in &item.sig.inputs {
        let FnArg::Typed(typed) = argument else {
            return Err("a function has no self".to_string());
        };
        if let Some(inner) = inside("Vec", &typed.ty) {
            vectors += 1;
            let element = inside("Option", inner).and_then(borrowed);
            let element = element.filter(|scalar| matches!(scalar, Scalar::Bigint | Scalar::Double));
            let scalar =
                element.ok_or("an aggregate takes Vec<Option<i64>> or Vec<Option<f64>>: nothing else compiles, or keeps its place")?;
            arguments.push(Argument { scalar, is_option: true });
            continue;
        }
        let optional = inside("Option", &typed.ty);
        let scalar = borrowed(optional.unwrap_or(&typed.ty))
            .ok_or("an argument is &str, &[u8], i64, f64 or an Option of these; pass a bool as 0 or 1, a time as ms")?;
        arguments.push(Argument {
            scalar,
            is_option: optional.is_some(),
        });
    }
    if arguments.is_empty() {
        return Err("a function without arguments does not compile with Arroyo's plugin".to_string());
    }
    if vectors > 0 && vectors < arguments.len() {
        return Err("every argument of an aggregate is a Vec".to_string());
    }
    let ReturnType::Type(_, result) = &item.sig.output else {
        return Err("it returns nothing".to_string());
    };
    let optional = inside("Option", result);
    let scalar = owned(optional.unwrap_or(result)).ok_or("a result is String, Vec<u8>, i64, f64 or an Option of these")?;
    Ok(Function {
        name,
        arguments,
        is_aggregate: vectors > 0,
        result: scalar,
        may_be_null: optional.is_some(),
    })
}

/// `T` of `wrapper<T>`.
fn inside<'a>(wrapper: &str, ty: &'a Type) -> Option<&'a Type> {
    let Type::Path(path) = ty else { return None };
    let segment = path.path.segments.last().filter(|segment| segment.ident == wrapper)?;
    let PathArguments::AngleBracketed(list) = &segment.arguments else {
        return None;
    };
    match list.args.first()? {
        GenericArgument::Type(inner) => Some(inner),
        _ => None,
    }
}

fn is_named(ty: &Type, name: &str) -> bool {
    matches!(ty, Type::Path(path) if path.path.is_ident(name))
}

fn number(ty: &Type) -> Option<Scalar> {
    match ty {
        ty if is_named(ty, "i64") => Some(Scalar::Bigint),
        ty if is_named(ty, "f64") => Some(Scalar::Double),
        _ => None,
    }
}

fn borrowed(ty: &Type) -> Option<Scalar> {
    let Type::Reference(reference) = ty else {
        return number(ty);
    };
    match reference.elem.as_ref() {
        elem if is_named(elem, "str") => Some(Scalar::Text),
        Type::Slice(slice) if is_named(&slice.elem, "u8") => Some(Scalar::Bytea),
        _ => None,
    }
}

fn owned(ty: &Type) -> Option<Scalar> {
    match ty {
        ty if is_named(ty, "String") => Some(Scalar::Text),
        ty if inside("Vec", ty).is_some_and(|inner| is_named(inner, "u8")) => Some(Scalar::Bytea),
        ty => number(ty),
    }
}

// ---- the registrations ----

impl Scalar {
    fn data_type(self) -> &'static str {
        match self {
            Scalar::Bigint => "DataType::Int64",
            Scalar::Double => "DataType::Float64",
            Scalar::Text => "DataType::Utf8",
            Scalar::Bytea => "DataType::Binary",
        }
    }

    fn array(self) -> &'static str {
        match self {
            Scalar::Bigint => "Int64Array",
            Scalar::Double => "Float64Array",
            Scalar::Text => "StringArray",
            Scalar::Bytea => "BinaryArray",
        }
    }

    fn value(self) -> &'static str {
        match self {
            Scalar::Bigint => "ScalarValue::Int64",
            Scalar::Double => "ScalarValue::Float64",
            Scalar::Text => "ScalarValue::Utf8",
            Scalar::Bytea => "ScalarValue::Binary",
        }
    }
}

fn registrations(functions: &[Function]) -> String {
    let of_kind = |is_aggregate: bool| functions.iter().filter(move |function| function.is_aggregate == is_aggregate);
    let mut code = String::new();
    for function in of_kind(false) {
        scalar_code(&mut code, function);
    }
    for function in of_kind(true) {
        aggregate_code(&mut code, function);
    }
    for (name, kind, is_aggregate) in [("scalars", "ScalarUDF", false), ("aggregates", "AggregateUDF", true)] {
        let _ = writeln!(code, "fn {name}() -> Vec<{kind}> {{\n    vec![");
        for function in of_kind(is_aggregate) {
            let types: Vec<&str> = function.arguments.iter().map(|argument| argument.scalar.data_type()).collect();
            let _ = writeln!(
                code,
                "        {}({:?}, vec![{}], {}, {}),",
                name.trim_end_matches('s'),
                function.name,
                types.join(", "),
                function.result.data_type(),
                function.name
            );
        }
        code.push_str("    ]\n}\n");
    }
    code
}

/// One call a row; the row is NULL where an argument that takes none is.
fn scalar_code(code: &mut String, function: &Function) {
    let name = &function.name;
    let _ = writeln!(code, "fn {name}(columns: &[ArrayRef], rows: usize) -> Result<ArrayRef> {{");
    for (at, argument) in function.arguments.iter().enumerate() {
        let _ = writeln!(code, "    let column_{at}: &{} = column(columns, {at})?;", argument.scalar.array());
    }
    code.push_str("    let values = (0..rows).map(|row| {\n");
    let mut names = Vec::new();
    for (at, argument) in function.arguments.iter().enumerate() {
        let value = format!("(!column_{at}.is_null(row)).then(|| column_{at}.value(row))");
        let taken = if argument.is_option { "" } else { "?" };
        let _ = writeln!(code, "        let value_{at} = ({value}){taken};");
        names.push(format!("value_{at}"));
    }
    let call = format!("files::{name}::{name}({})", names.join(", "));
    let answer = if function.may_be_null { call } else { format!("Some({call})") };
    let _ = writeln!(code, "        {answer}\n    }});");
    let _ = writeln!(code, "    Ok(Arc::new(values.collect::<{}>()))\n}}", function.result.array());
}

/// One call with all rows of the group.
fn aggregate_code(code: &mut String, function: &Function) {
    let name = &function.name;
    let _ = writeln!(code, "fn {name}(columns: &[ArrayRef]) -> Result<ScalarValue> {{");
    let mut names = Vec::new();
    for (at, argument) in function.arguments.iter().enumerate() {
        let _ = writeln!(code, "    let column_{at}: &{} = column(columns, {at})?;", argument.scalar.array());
        names.push(format!("column_{at}.iter().collect()"));
    }
    let call = format!("files::{name}::{name}({})", names.join(", "));
    let answer = if function.may_be_null { call } else { format!("Some({call})") };
    let _ = writeln!(code, "    Ok({}({answer}))\n}}", function.result.value());
}
