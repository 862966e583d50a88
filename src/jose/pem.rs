//! Extracts the private key from a PEM file (RFC 7468).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pkcs8::SecretDocument;
use zeroize::Zeroizing;

/// Returns the PKCS#8 document in `text`. Accepts certificates in front of the key, blank lines,
/// and lines of any length, because real files contain them.
///
/// # Errors
///
/// A message that says what `text` contains instead of a PKCS#8 key and, where possible, how to get
/// a PKCS#8 key.
pub fn private_key(text: &str) -> Result<SecretDocument, String> {
    let is_not = |what: &str| Err(format!("is not an unencrypted PKCS#8 private key in PEM{what}"));
    let mut others = Vec::new();
    let mut rest = text;
    while let Some((_, begun)) = rest.split_once(BEGIN) {
        let Some((label, body)) = begun.split_once("-----") else { break };
        let label = label.trim();
        if label == LABEL {
            let Some((encoded, _)) = body.split_once(END) else {
                return is_not(": it has no END line, so part of it is missing");
            };
            let encoded: Zeroizing<Vec<u8>> =
                Zeroizing::new(encoded.bytes().filter(|b| !b.is_ascii_whitespace()).collect());
            return match STANDARD.decode(&*encoded) {
                Ok(document) => SecretDocument::try_from(Zeroizing::new(document).as_slice())
                    .or_else(|_| is_not(": it is cut off or damaged")),
                Err(_) => is_not(": the text between BEGIN and END is not base64"),
            };
        }
        others.push(label);
        rest = body;
    }
    match others.as_slice() {
        [] => is_not(&format!("; it has no line {BEGIN}{LABEL}-----")),
        others => is_not(&describe_others(others)),
    }
}

/// Describes PEM blocks with these labels in an error message, and says how to get a PKCS#8 key.
fn describe_others(labels: &[&str]) -> String {
    let has = |label: &str| labels.contains(&label);
    if has("ENCRYPTED PRIVATE KEY") {
        ", but an encrypted one: decrypt it with `openssl pkcs8 -in FILE -out NEW`".to_owned()
    } else if has("RSA PRIVATE KEY") {
        format!(", but a PKCS#1 one (RSA PRIVATE KEY): {CONVERT}")
    } else if has("EC PRIVATE KEY") {
        ", but a key on an elliptic curve: tokens are signed with RSA keys".to_owned()
    } else if has("OPENSSH PRIVATE KEY") {
        ", but a key of OpenSSH: make an RSA key with `grantd key generate`".to_owned()
    } else if has("PUBLIC KEY") || has("RSA PUBLIC KEY") {
        ", but a public key: its private half is needed".to_owned()
    } else if has("CERTIFICATE") {
        ", but a certificate: its private key is needed".to_owned()
    } else {
        // The message does not show the label, which may be a misplaced secret.
        format!(", but another kind of block: {CONVERT}")
    }
}

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END PRIVATE KEY-----";
const LABEL: &str = "PRIVATE KEY";
const CONVERT: &str = "convert it with `openssl pkcs8 -topk8 -nocrypt -in FILE -out NEW`";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_content_is_named_without_its_secrets() {
        let block = |label: &str| format!("-----BEGIN {label}-----\nAAEC\n-----END {label}-----\n");
        for (text, says) in [
            (String::new(), "no line -----BEGIN PRIVATE KEY-----"),
            ("hunter2".to_owned(), "no line -----BEGIN PRIVATE KEY-----"),
            (block("RSA PRIVATE KEY"), "PKCS#1"),
            (block("ENCRYPTED PRIVATE KEY"), "encrypted"),
            (block("EC PRIVATE KEY"), "elliptic curve"),
            (block("OPENSSH PRIVATE KEY"), "OpenSSH"),
            (block("CERTIFICATE"), "a certificate"),
            (block("PUBLIC KEY"), "a public key"),
            (block("HUNTER2"), "another kind"),
            (block("PRIVATE KEY").replace("END", "hunter2"), "no END line"),
            (block("PRIVATE KEY").replace("AAEC", "hunter2!"), "not base64"),
            (block("PRIVATE KEY"), "cut off or damaged"),
            (block("PRIVATE KEY").replace("AAEC", "MAUBAgME"), "cut off or damaged"),
        ] {
            let problem = private_key(&text).err().unwrap_or_default();
            assert!(problem.contains(says), "{text}: {problem}");
            assert!(!problem.to_ascii_lowercase().contains("hunter2"), "{problem}");
        }
    }
}
