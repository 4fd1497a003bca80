//! What a Redis user must be allowed to do.

use session_store_core::LayeredConfig;

use crate::config::{RedisConfig, Servers};
use crate::key;

/// What is always needed. Since Redis 7 the commands inside a script are checked as well.
const ALWAYS: [&str; 9] =
    ["+get", "+set", "+del", "+unlink", "+time", "+eval", "+evalsha", "+info", "+select"];

impl RedisConfig {
    /// The least rights that the user of this cache needs, as the words of `ACL SETUSER`, when the
    /// layered store above is configured by `layered`.
    ///
    /// ```
    /// use session_store_core::LayeredConfig;
    /// use session_store_redis::RedisConfig;
    ///
    /// let config = RedisConfig::parse("redis://cache")?;
    /// let rules = config.acl_rules(&LayeredConfig::default()).join(" ");
    /// assert!(rules.starts_with("resetkeys ~ss:* -@all +get"));
    /// # Ok::<(), session_store_core::Error>(())
    /// ```
    pub fn acl_rules(&self, layered: &LayeredConfig) -> Vec<String> {
        let pattern = pattern(&self.key_prefix, &layered.key_prefix);
        let mut rules = vec!["resetkeys".to_owned(), format!("~{pattern}*"), "-@all".to_owned()];
        rules.extend(ALWAYS.map(str::to_owned));
        if self.wait.is_some() {
            rules.push("+wait".to_owned());
        }
        if matches!(self.servers, Servers::Cluster(_)) {
            rules.extend(["+cluster|nodes", "+asking"].map(str::to_owned));
        }
        rules
    }
}

/// The beginning of all keys, with every character taken literally.
fn pattern(prefix: &str, layered: &str) -> String {
    let mut pattern = String::new();
    for character in key::beginning(prefix, layered).chars() {
        if matches!(character, '*' | '?' | '[' | ']' | '\\') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_no_pattern() {
        assert_eq!(pattern("", "ss:"), "ss:");
        assert_eq!(pattern("a*[b]?", "x\\"), "a\\*\\[b\\]\\?x\\\\");
        assert_eq!(pattern("{app}", "ss:"), "{}{app}ss:");
    }
}
