//! What a role must be allowed to do, as IAM takes it.

use session_store_core::{Error, Result};

use super::error::NAME;
use super::owner::SEEN;

/// What somebody does with a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Access {
    /// A node with a [`DynamoStore`](super::DynamoStore).
    Store,
    /// A node that only checks sessions and changes nothing. Of users it can read what decides about
    /// their sessions; not the hashes of passwords, and not addresses. Where
    /// [`project_email`](super::DynamoConfig::project_email) is on, add `email` to the attributes.
    Verifier,
    /// A node with a [`DynamoCache`](super::DynamoCache).
    Cache,
    /// Whoever calls [`create_table`](super::create_table).
    Setup,
}

/// Actions, and what they are limited to.
struct Statement {
    /// In the order of the alphabet.
    actions: &'static [&'static str],
    /// The partitions, if not all.
    partitions: &'static [&'static str],
    /// The attributes, if not all. Requests must name those that they want then.
    attributes: &'static [&'static str],
}

impl Statement {
    const fn of(actions: &'static [&'static str]) -> Self {
        Self { actions, partitions: &[], attributes: &[] }
    }

    fn json(&self, table_arn: &str) -> String {
        let actions: Vec<_> =
            self.actions.iter().map(|action| format!("dynamodb:{action}")).collect();
        let mut conditions = Vec::new();
        if !self.partitions.is_empty() {
            let list = list(self.partitions, 10);
            conditions.push(format!(
                "        \"ForAllValues:StringLike\": {{\n          \"dynamodb:LeadingKeys\": {list}\n        }}"
            ));
        }
        if !self.attributes.is_empty() {
            let list = list(self.attributes, 10);
            conditions.push(format!(
                "        \"ForAllValues:StringEquals\": {{\n          \"dynamodb:Attributes\": {list}\n        }}"
            ));
            conditions.push(
                "        \"StringEqualsIfExists\": {\n          \"dynamodb:Select\": \
                 \"SPECIFIC_ATTRIBUTES\"\n        }"
                    .to_owned(),
            );
        }
        let actions = list(&actions, 6);
        let mut text = format!(
            "    {{\n      \"Effect\": \"Allow\",\n      \"Action\": {actions},\n      \"Resource\": \
             \"{table_arn}\""
        );
        if !conditions.is_empty() {
            text.push_str(",\n      \"Condition\": {\n");
            text.push_str(&conditions.join(",\n"));
            text.push_str("\n      }");
        }
        text.push_str("\n    }");
        text
    }
}

/// A list in JSON, whose lines begin behind `indent` spaces and two more.
fn list(texts: &[impl AsRef<str>], indent: usize) -> String {
    let line = |text: &dyn AsRef<str>| format!("{:indent$}  \"{}\"", "", text.as_ref());
    let lines: Vec<_> = texts.iter().map(|text| line(text)).collect();
    format!("[\n{}\n{:indent$}]", lines.join(",\n"), "")
}

impl Access {
    fn statements(self) -> Vec<Statement> {
        match self {
            Self::Store => vec![Statement::of(&[
                "BatchGetItem",
                "BatchWriteItem",
                "ConditionCheckItem",
                "DeleteItem",
                "GetItem",
                "PutItem",
                "Query",
                "Scan",
                "UpdateItem",
            ])],
            Self::Verifier => vec![
                Statement {
                    partitions: &["S#*", "R#caches"],
                    ..Statement::of(&["GetItem", "Query"])
                },
                Statement {
                    partitions: &["U#*"],
                    attributes: VERIFIED,
                    ..Statement::of(&["GetItem"])
                },
            ],
            Self::Cache => vec![Statement::of(&[
                "BatchWriteItem",
                "DeleteItem",
                "GetItem",
                "PutItem",
                "UpdateItem",
            ])],
            Self::Setup => vec![Statement::of(&[
                "CreateTable",
                "DescribeTable",
                "DescribeTimeToLive",
                "UpdateTimeToLive",
            ])],
        }
    }
}

/// What the requests of a verifier name of a user's item: its keys, and what it reads.
const VERIFIED: &[&str] = &{
    let mut all = ["pk"; SEEN.len() + 2];
    all[1] = "sk";
    let mut at = 0;
    while at < SEEN.len() {
        all[at + 2] = SEEN[at];
        at += 1;
    }
    all
};

/// The least that IAM must allow, as a policy document in JSON: these actions on this table, and nothing
/// else. `table_arn` is `arn:aws:dynamodb:REGION:ACCOUNT:table/NAME`; anything else is `InvalidInput`.
pub fn minimal_policy(table_arn: &str, access: Access) -> Result<String> {
    let is_known = |c: char| c.is_ascii_alphanumeric() || ":/_.-".contains(c);
    let parts: Vec<&str> = table_arn.splitn(6, ':').collect();
    let is_arn = matches!(parts.as_slice(),
        ["arn", partition, "dynamodb", region, account, resource]
            if partition.starts_with("aws") && !region.is_empty() && !account.is_empty()
                && resource.strip_prefix("table/").is_some_and(|name| name.len() >= 3 && !name.contains('/')));
    if !is_arn || !table_arn.chars().all(is_known) {
        let what = "table_arn; expected is arn:aws:dynamodb:REGION:ACCOUNT:table/NAME";
        return Err(Error::invalid(NAME, what));
    }
    let statements = access.statements();
    let statements: Vec<_> = statements.iter().map(|one| one.json(table_arn)).collect();
    Ok(format!(
        "{{\n  \"Version\": \"2012-10-17\",\n  \"Statement\": [\n{}\n  ]\n}}\n",
        statements.join(",\n")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARN: &str = "arn:aws:dynamodb:eu-central-1:123456789012:table/sessions";

    fn printed(access: Access) -> Vec<serde_json::Value> {
        let policy = minimal_policy(ARN, access).unwrap();
        let policy: serde_json::Value = serde_json::from_str(&policy).unwrap();
        policy["Statement"].as_array().unwrap().clone()
    }

    #[test]
    fn a_policy_is_json_and_names_one_table() {
        for access in [Access::Store, Access::Verifier, Access::Cache, Access::Setup] {
            for (own, statement) in access.statements().iter().zip(printed(access)) {
                assert_eq!(statement["Resource"], ARN);
                assert_eq!(statement["Action"].as_array().unwrap().len(), own.actions.len());
                let is_limited = !own.partitions.is_empty();
                assert_eq!(statement.get("Condition").is_some(), is_limited);
            }
        }
    }

    #[test]
    fn a_verifier_may_read_no_password_and_no_address() {
        let statements = printed(Access::Verifier);
        let users = &statements[1]["Condition"];
        assert_eq!(users["ForAllValues:StringLike"]["dynamodb:LeadingKeys"][0], "U#*");
        let attributes = &users["ForAllValues:StringEquals"]["dynamodb:Attributes"];
        let attributes = attributes.as_array().unwrap();
        assert!(attributes.iter().any(|name| name == "barrier"));
        for secret in ["password_hash", "email", "last_login_at"] {
            assert!(attributes.iter().all(|name| name != secret), "{secret}");
        }
        assert_eq!(users["StringEqualsIfExists"]["dynamodb:Select"], "SPECIFIC_ATTRIBUTES");
        let others = &statements[0]["Condition"]["ForAllValues:StringLike"];
        assert_eq!(others["dynamodb:LeadingKeys"], serde_json::json!(["S#*", "R#caches"]));
    }

    #[test]
    fn what_is_no_table_is_refused() {
        for wrong in ["", "sessions", "*", "arn:aws:s3:::bucket", &format!("{ARN}\""), &ARN[..50]] {
            assert!(minimal_policy(wrong, Access::Store).is_err(), "{wrong}");
        }
        let index = format!("{ARN}/index/email");
        assert!(minimal_policy(&index, Access::Store).is_err());
    }
}
