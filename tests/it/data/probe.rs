//! A scorer that misbehaves on demand: the first prompt of the job says how.
//! `probe run [--root DIR]`, as the runners call a real one.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

// The standard library cannot ignore a signal; this program is test data and links nothing of ours.
unsafe extern "C" {
    fn signal(number: i32, handler: usize) -> usize;
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    assert_eq!(args[1], "run");
    let root = args.get(3).map_or(PathBuf::from("/"), PathBuf::from);
    let samples = fs::read_to_string(root.join("job/samples.jsonl")).unwrap();
    let first = samples.lines().next().unwrap();
    let prompt = first.split("\"prompt\":\"").nth(1).unwrap();
    let words: Vec<&str> = prompt.trim_end_matches(['"', '}']).split(' ').collect();
    let out = root.join("out");
    eprintln!("probe: \u{1b}[31m{}\u{1b}[0m", words[0]);
    match words[0] {
        "look" => look(&root, &out),
        "silent" => hang(),
        "stall" => {
            beat(&out, words[1]);
            hang();
        }
        "busy" => loop {
            beat(&out, words[1]);
            std::thread::sleep(Duration::from_millis(100));
        },
        "stubborn" => {
            unsafe { signal(15, 1) };
            fs::write(out.join("ready"), "").unwrap();
            hang();
        }
        "memory" => {
            let mut held: Vec<Vec<u8>> = Vec::new();
            loop {
                held.push(vec![1; 8 << 20]);
            }
        }
        "flood" => {
            let mut file = fs::File::create(out.join("replies.jsonl")).unwrap();
            loop {
                file.write_all(&[b'x'; 1 << 16]).unwrap();
            }
        }
        "abort" => std::process::abort(),
        "exit" => std::process::exit(words[1].parse().unwrap()),
        other => panic!("unknown: {other}"),
    }
}

fn hang() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

fn beat(out: &Path, stage: &str) {
    let path = out.join("progress.jsonl");
    let mut file = fs::File::options().create(true).append(true).open(path).unwrap();
    writeln!(file, "{{\"t\":0.5,\"stage\":\"{stage}\",\"done\":1,\"total\":2}}").unwrap();
}

/// What the sealed surroundings look like from inside.
fn look(root: &Path, out: &Path) {
    let mut lines = Vec::new();
    for (name, value) in std::env::vars() {
        lines.push(format!("env {name}={value}"));
    }
    let status = fs::read_to_string("/proc/self/status").unwrap();
    for line in status.lines() {
        if ["Uid:", "Gid:", "CapEff:", "CapBnd:", "NoNewPrivs:", "Seccomp:"]
            .iter()
            .any(|key| line.starts_with(key))
        {
            lines.push(line.split_whitespace().collect::<Vec<_>>().join(" "));
        }
    }
    // Only a container keeps these apart from the host's.
    let places = ["", "job", "model", "out", "tmp", "dev/shm"];
    for place in places.iter().filter(|_| root == Path::new("/")) {
        let written = fs::write(root.join(place).join("written"), "x").is_ok();
        lines.push(format!("write /{place} {written}"));
    }
    let links = fs::read_dir("/sys/class/net").map(|dir| {
        let mut names: Vec<_> = dir.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names.join(",")
    });
    lines.push(format!("links {}", links.unwrap_or_default()));
    let limits = fs::read_to_string("/proc/self/limits").unwrap();
    for limit in ["Max core", "Max file size"] {
        let line = limits.lines().find(|line| line.starts_with(limit)).unwrap();
        lines.push(line.split_whitespace().collect::<Vec<_>>().join(" "));
    }
    fs::write(out.join("look.txt"), lines.join("\n")).unwrap();
}
