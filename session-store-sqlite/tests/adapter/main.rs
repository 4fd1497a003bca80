//! What the rows, the schema and the threads of this adapter do beyond the contract.

#[cfg(test)]
mod support;

mod ending;
mod schema;
mod shell;
