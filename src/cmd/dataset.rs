//! `assay dataset`: orders to a running Dataset API, over its operator's address on loopback.

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::{Failure, print_line};
use crate::cli::{DatasetCommand, DatasetOrder};
use crate::clock::now_ms;
use crate::config::{self, DatasetApi};
use crate::dataset_api::admin::{Command, Order, operators_token};
use crate::dataset_api::client::Class;
use crate::dataset_api::rules::{Block, Change, Limit, Target};

const TIMEOUT: Duration = Duration::from_secs(10);

/// Gives one order, or shows the live view until interrupted.
///
/// # Errors
/// [`Failure`]: 64 for a wrong order or configuration, 69 when no Dataset API answers.
pub async fn run(command: DatasetCommand) -> Result<(), Failure> {
    let path = command.config.as_deref();
    let path = path.ok_or_else(|| Failure::usage("name the configuration by --config"))?;
    let config = config::load_dataset_api(path).map_err(Failure::usage)?;
    let line = Line::open(&config, path)?;
    match command.order {
        DatasetOrder::Top { once } => line.top(once).await,
        DatasetOrder::Rules => print_line(line.get("v1/rules").await?),
        order => {
            let command_ = translate(order).map_err(Failure::usage)?;
            let order = Order {
                actor: command.actor,
                command: command_,
            };
            print_line(line.send(&order).await?)
        }
    }
}

fn target(text: &str) -> Result<Target, String> {
    text.parse()
}

fn millis(life: Duration) -> u64 {
    u64::try_from(life.as_millis()).unwrap_or(u64::MAX)
}

fn translate(order: DatasetOrder) -> Result<Command, String> {
    Ok(match order {
        DatasetOrder::Block {
            target: whom,
            life,
            reason,
        } => Command::Change(Change::Block(Block {
            target: target(&whom)?,
            until_ms: life.map(|life| now_ms().saturating_add(millis(life))),
            reason,
        })),
        DatasetOrder::Unblock { target: whom } => Command::Change(Change::Unblock {
            target: target(&whom)?,
        }),
        DatasetOrder::Limit {
            target: whom,
            burst,
            per_hour,
            clear,
        } => {
            let target = target(&whom)?;
            Command::Change(match (burst, per_hour, clear) {
                (Some(burst), Some(per_hour), false) => Change::Limit(Limit {
                    target,
                    burst,
                    per_hour,
                }),
                _ => Change::Unlimit { target },
            })
        }
        DatasetOrder::Token {
            class,
            group,
            note,
            life,
        } => {
            let found = Class::ALL.into_iter().find(|c| c.as_str() == class);
            let class = found.filter(|class| *class != Class::Anonymous);
            Command::Issue {
                class: class.ok_or("the classes are scorer, validator, miner and coldkey")?,
                group,
                note,
                life_ms: millis(life),
            }
        }
        DatasetOrder::Revoke { which } => Command::Revoke { which },
        DatasetOrder::Top { .. } | DatasetOrder::Rules => return Err("not an order".to_owned()),
    })
}

/// The way to the running server.
struct Line {
    http: reqwest::Client,
    base: String,
    token: String,
}

impl Line {
    fn open(config: &DatasetApi, path: &Path) -> Result<Self, Failure> {
        let (Some(address), Some(state)) = (config.admin, &config.state) else {
            let path = path.display();
            return Err(Failure::usage(format_args!(
                "{path}: set dataset_api.admin and dataset_api.state first"
            )));
        };
        let token = operators_token(state)
            .map_err(|e| Failure::unavailable(format_args!("the operator's token: {e}")))?;
        let http = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .build()
            .map_err(Failure::bug)?;
        Ok(Self {
            http,
            base: format!("http://{address}"),
            token,
        })
    }

    async fn answer(&self, request: reqwest::RequestBuilder) -> Result<String, Failure> {
        let base = &self.base;
        let silent = |e: reqwest::Error| {
            Failure::unavailable(format_args!("no Dataset API answers at {base}: {e}"))
        };
        let answer = request
            .bearer_auth(&self.token)
            .send()
            .await
            .map_err(silent)?;
        let status = answer.status();
        let text = answer.text().await.map_err(silent)?;
        if status.is_success() {
            Ok(text)
        } else {
            Err(Failure::usage(format_args!(
                "refused with {status}: {text}"
            )))
        }
    }

    async fn get(&self, path: &str) -> Result<String, Failure> {
        self.answer(self.http.get(format!("{}/{path}", self.base)))
            .await
    }

    async fn send(&self, order: &Order) -> Result<String, Failure> {
        let url = format!("{}/v1/orders", self.base);
        self.answer(self.http.post(url).json(order)).await
    }

    async fn top(&self, once: bool) -> Result<(), Failure> {
        let live = std::io::stdout().is_terminal() && !once;
        loop {
            let text = self.get("v1/top").await?;
            if !live {
                return print_line(text);
            }
            let value: Value = serde_json::from_str(&text).map_err(Failure::bug)?;
            // Home and clear to the end: the picture is drawn anew without flicker.
            print_line(format_args!("\x1b[H\x1b[J{}", picture(&value)))?;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

/// A number for a column: as text, for JSON values heed no width.
fn cell(value: &Value) -> String {
    value.to_string()
}

/// The live view as text.
fn picture(value: &Value) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    for lane in value["lanes"].as_array().into_iter().flatten() {
        let (open, seats) = (&lane["connections"], &lane["seats"]);
        let full = lane["saturation"].as_f64().unwrap_or(0.0) * 100.0;
        let _ = writeln!(
            text,
            "{:<10} {full:>5.1} % full   connections {}/{}   answers {}/{} (most {})",
            lane["lane"].as_str().unwrap_or(""),
            open[0],
            open[1],
            seats[0],
            seats[1],
            seats[2]
        );
    }
    let _ = writeln!(
        text,
        "tokens {}   registered hotkeys {}   abnormal {}   connections reset unread today {}",
        value["tokens"], value["registered"], value["abnormal"], value["today"]["dropped"]
    );
    let _ = writeln!(text, "\n{:>12}  who", "requests");
    for talker in value["talkers"].as_array().into_iter().flatten() {
        let _ = writeln!(
            text,
            "{:>12}  {}",
            cell(&talker["requests"]),
            talker["who"].as_str().unwrap_or("")
        );
    }
    let _ = writeln!(
        text,
        "\n{:>12} {:>12} {:>12} {:>16}  group/class today",
        "served", "refused", "shed", "bytes"
    );
    let shares = value["today"]["shares"].as_object();
    for (name, share) in shares.into_iter().flatten() {
        let _ = writeln!(
            text,
            "{:>12} {:>12} {:>12} {:>16}  {name}",
            cell(&share["served"]),
            cell(&share["refused"]),
            cell(&share["shed"]),
            cell(&share["bytes"])
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_names_lanes_talkers_and_groups() {
        let value = serde_json::json!({
            "lanes": [{ "lane": "public", "connections": [3, 256], "seats": [1, 32, 32], "saturation": 0.5 }],
            "talkers": [{ "who": "prefix:10.0.0.1/32", "requests": 7 }],
            "today": { "dropped": 9, "shares": { "sn11/miner": { "served": 1, "refused": 2, "shed": 3, "bytes": 4 } } },
            "tokens": 1, "registered": 2, "abnormal": ["sn11"],
        });
        let text = picture(&value);
        for part in [
            "public",
            " 50.0 %",
            "3/256",
            "           7  prefix:10.0.0.1/32",
            "           1            2            3                4  sn11/miner",
            "unread today 9",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn orders_are_understood_or_refused_here() {
        let order = DatasetOrder::Unblock {
            target: "sn11".into(),
        };
        assert!(translate(order).is_err());
        let clear = DatasetOrder::Limit {
            target: "group:a".into(),
            burst: None,
            per_hour: None,
            clear: true,
        };
        assert!(matches!(
            translate(clear),
            Ok(Command::Change(Change::Unlimit { .. }))
        ));
        let token = |class: &str| DatasetOrder::Token {
            class: class.into(),
            group: "none".into(),
            note: "x".into(),
            life: Duration::from_secs(1),
        };
        assert!(translate(token("anonymous")).is_err());
        assert!(translate(token("scorer")).is_ok());
    }
}
