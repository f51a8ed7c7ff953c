//! Files that change while they are fetched, what they are compared with, and lists of files.

use super::*;

/// Of two versions of the same length, no file is made.
#[test]
fn a_file_that_changes_while_it_is_fetched_is_refused() {
    let other: Vec<u8> = weights().iter().map(|byte| !byte).collect();
    // Before the body, or in the middle of it; with a new commit, or none.
    for (asked, commit) in [(1, "new"), (2, "new"), (1, COMMIT), (2, COMMIT)] {
        let (cache, other) = (tempfile::tempdir().unwrap(), other.clone());
        let server = Server::new(move |request, number| match number < asked {
            true => Reply {
                cut: (number > 0).then_some(100),
                ..Reply::good(request, &weights()).with("etag", "\"first\"")
            },
            false => Reply::good(request, &other)
                .with("etag", "\"second\"")
                .with("x-repo-commit", commit),
        });
        let error = reason(fetch(&hub(&server.address, cache.path()), "model.safetensors"));
        match commit {
            COMMIT => assert!(matches!(error, FetchError::Header { header: "ETag", .. }), "{error}"),
            _ => assert!(matches!(error, FetchError::Changed { .. }), "{error}"),
        }
        let folder = cache.path().join("models--org--tiny");
        assert!(!folder.join("blobs/first").exists() && !folder.join("snapshots").exists());
    }
}

#[test]
fn the_checksum_of_git_is_compared() {
    // What `git hash-object` says.
    let (bytes, git) = (b"{\"a\": 1}", "4a036f56bb619924ec4189bd84ed716c766971ae");
    for (etag, good) in [(git.to_string(), true), ("e1".repeat(20), false)] {
        let cache = tempfile::tempdir().unwrap();
        let server = Server::new(move |request, _| Reply::good(request, bytes).with("etag", format!("\"{etag}\"")));
        let result = fetch(&hub(&server.address, cache.path()), "config.json");
        if good {
            assert_eq!(fs::read(result.unwrap()).unwrap(), bytes);
            continue;
        }
        let error = reason(result);
        assert!(error.to_string().contains("its SHA-1, as git has it, is"), "{error}");
        assert_eq!(
            fs::read_dir(cache.path().join("models--org--tiny/blobs"))
                .unwrap()
                .count(),
            0
        );
    }
}

/// The list of templates comes in pages, and a server may fail once.
#[test]
fn every_page_of_a_list_is_read_and_asked_for_again() {
    let cache = tempfile::tempdir().unwrap();
    let failed = Mutex::new(false);
    let server = Server::new(move |request, _| match request.file() {
        "config.json" | "model.safetensors" | "one.jinja" | "two.jinja" => Reply::good(request, b"{}"),
        "additional_chat_templates" if !std::mem::replace(&mut *failed.lock().unwrap(), true) => Reply::status(500),
        "additional_chat_templates" => Reply {
            body: br#"[{"path": "additional_chat_templates/one.jinja"}]"#.to_vec(),
            ..Reply::status(200).with("link", "</second>; rel=\"next\"")
        },
        "second" => Reply {
            body: br#"[{"path": "additional_chat_templates/two.jinja"}]"#.to_vec(),
            ..Reply::status(200)
        },
        _ => Reply::status(404),
    });
    let model = HubModel::parse("org/tiny", hub(&server.address, cache.path())).unwrap();
    let folder = model.language().unwrap();
    for name in ["one.jinja", "two.jinja"] {
        assert!(folder.join("additional_chat_templates").join(name).is_file(), "{name}");
    }
}
