//! No path of one machine: what is written down must hold on every other.

use crate::violation::Violation;

const ROOTS: [&str; 4] = ["home", "root", "tmp", "work"];

/// Finds a folder of [`ROOTS`] where a path starts, in code, text and comments alike.
pub(super) fn check(path: &str, content: &str) -> Vec<Violation> {
    content
        .lines()
        .zip(1..)
        .filter_map(|(line, number)| {
            let root = ROOTS.into_iter().find(|root| starts_at(line, root))?;
            Some(Violation::new(
                path,
                number,
                "absolute-path",
                format!("a path under the folder `{root}` of one machine"),
            ))
        })
        .collect()
}

fn starts_at(line: &str, root: &str) -> bool {
    let folder = format!("/{root}/");
    line.match_indices(&folder).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || "_-.})]*~".contains(c))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_one_machine_is_refused() {
        for root in ROOTS {
            for before in ["", "cd ", "(", "\"", "`", "file://", "sqlite:", "A="] {
                let line = format!("{before}/{root}/x");
                assert_eq!(check("a.md", &format!("one\n{line}\n"))[0].line, 2, "{line}");
            }
        }
    }

    #[test]
    fn a_folder_inside_another_is_not() {
        for root in ROOTS {
            for before in ["src", "$DIR", "${DIR}", ".", "example.org"] {
                assert_eq!(check("a.md", &format!("{before}/{root}/x")), [], "{before}");
            }
            assert_eq!(check("a.rs", &format!("route(\"/{root}\")")), []);
        }
    }
}
