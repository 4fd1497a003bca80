//! What a role must be allowed to do, as IAM takes it.

use session_store_core::{Error, Result};

use super::error::NAME;

/// What somebody does with a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Access {
    /// A node with a [`DynamoStore`](super::DynamoStore).
    Store,
    /// A node that only checks sessions and changes nothing.
    Verifier,
    /// A node with a [`DynamoCache`](super::DynamoCache).
    Cache,
    /// Whoever calls [`create_table`](super::create_table).
    Setup,
}

impl Access {
    /// The actions, in the order of the alphabet.
    fn actions(self) -> &'static [&'static str] {
        match self {
            Self::Store => &[
                "BatchGetItem",
                "BatchWriteItem",
                "ConditionCheckItem",
                "DeleteItem",
                "GetItem",
                "PutItem",
                "Query",
                "Scan",
                "UpdateItem",
            ],
            Self::Verifier => &["GetItem", "Query"],
            Self::Cache => &["BatchWriteItem", "DeleteItem", "GetItem", "PutItem", "UpdateItem"],
            Self::Setup => {
                &["CreateTable", "DescribeTable", "DescribeTimeToLive", "UpdateTimeToLive"]
            }
        }
    }
}

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
    let actions: Vec<_> =
        access.actions().iter().map(|action| format!("        \"dynamodb:{action}\"")).collect();
    Ok(format!(
        r#"{{
  "Version": "2012-10-17",
  "Statement": [
    {{
      "Effect": "Allow",
      "Action": [
{}
      ],
      "Resource": "{table_arn}"
    }}
  ]
}}
"#,
        actions.join(",\n")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARN: &str = "arn:aws:dynamodb:eu-central-1:123456789012:table/sessions";

    #[test]
    fn a_policy_is_json_and_names_one_table() {
        for access in [Access::Store, Access::Verifier, Access::Cache, Access::Setup] {
            let policy = minimal_policy(ARN, access).unwrap();
            let policy: serde_json::Value = serde_json::from_str(&policy).unwrap();
            let statement = &policy["Statement"][0];
            assert_eq!(statement["Resource"], ARN);
            assert_eq!(statement["Action"].as_array().unwrap().len(), access.actions().len());
        }
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
