//! Shell patterns for names.

/// Whether `name` as a whole matches `pattern`: `*` any characters, `?` one, `[a-z]` one of a
/// set, `[!a-z]` one not of it, `\` takes the next character as it is. A `[` without its `]`
/// is an ordinary character.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    let (mut p, mut n) = (0, 0);
    // Where to go back to: after the last `*`, with one character more taken by it.
    let mut retry: Option<(usize, usize)> = None;
    loop {
        if pattern.get(p) == Some(&'*') {
            retry = Some((p + 1, n));
            p += 1;
            continue;
        }
        let step = match name.get(n) {
            Some(&c) => one(&pattern[p..], c),
            None if p == pattern.len() => return true,
            None => return false,
        };
        match (step, retry) {
            (Some(used), _) => {
                p += used;
                n += 1;
            }
            (None, Some((back, taken))) => {
                retry = Some((back, taken + 1));
                (p, n) = (back, taken + 1);
            }
            (None, None) => return false,
        }
    }
}

/// How many characters at the start of `pattern` match the one character `c`; none if they
/// do not.
fn one(pattern: &[char], c: char) -> Option<usize> {
    match pattern {
        ['?', ..] => Some(1),
        ['[', rest @ ..] => match set(rest, c) {
            Some((true, used)) => Some(used + 1),
            Some((false, _)) => None,
            None => (c == '[').then_some(1),
        },
        ['\\', literal, ..] => (*literal == c).then_some(2),
        [literal, ..] => (*literal == c).then_some(1),
        [] => None,
    }
}

/// Whether `c` is in the set that `pattern` starts with, and the set's length with its `]`;
/// none if there is no `]`.
fn set(pattern: &[char], c: char) -> Option<(bool, usize)> {
    let negated = matches!(pattern.first(), Some('!' | '^'));
    let first = usize::from(negated);
    // A `]` in the first place is a member.
    let end = first + 1 + pattern.get(first + 1..)?.iter().position(|&c| c == ']')?;
    let members = &pattern[first..end];
    let mut found = false;
    let mut i = 0;
    while i < members.len() {
        if let [from, '-', to, ..] = members[i..] {
            found |= (from..=to).contains(&c);
            i += 3;
        } else {
            found |= members[i] == c;
            i += 1;
        }
    }
    Some((found != negated, end + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_a_shell() {
        let yes = [
            ("*", ""),
            ("*", "a.b"),
            ("*.tar", "x.tar"),
            ("a*b*c", "aXbYbZc"),
            ("?", "é"),
            ("[a-c]1", "b1"),
            ("[!a-c]1", "d1"),
            ("[]x]", "]"),
            ("[-a]", "-"),
            ("[", "["),
            ("a[", "a["),
            ("\\*", "*"),
            ("**", "x"),
        ];
        for (pattern, name) in yes {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        let no = [
            ("", "a"),
            ("?", ""),
            ("*.tar", "x.tar.gz"),
            ("[a-c]1", "d1"),
            ("[!a-c]1", "a1"),
            ("\\*", "x"),
            ("a*b", "ac"),
            ("A", "a"),
        ];
        for (pattern, name) in no {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn many_stars_do_not_take_forever() {
        let pattern = "*a".repeat(30);
        assert!(!matches(&pattern, &"b".repeat(5000)));
    }
}
