//! What the rows, the schema and the threads of this adapter do beyond the contract.

#[cfg(test)]
mod support;
#[cfg(test)]
mod ending;
#[cfg(test)]
mod existing;
#[cfg(test)]
mod log;
#[cfg(test)]
mod refused;
#[cfg(test)]
mod schema;
#[cfg(test)]
mod shell;
#[cfg(test)]
mod threads;
