//! Several providers, a meter, and a thousand calls over real sockets.

use super::{Rig, item, items, provider, run, serve};
use assay::demo::judge::{DevJudge, Known, MODEL, Misbehaviour};
use assay::scoring::judge::pool::Patience;
use assay::scoring::judge::spend::{Meter, Prices};
use assay::scoring::judge::{Judge, JudgeError, Verdicts};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A hundredth of 2.5 s.
const LATENCY: Duration = Duration::from_millis(25);

fn dev(conversations: usize) -> DevJudge {
    let known = |n| Known {
        context: item(n, "").context,
        reference: super::REFERENCE.to_owned(),
    };
    DevJudge::new(&(0..conversations).map(known).collect::<Vec<_>>(), 0.0)
}

fn patience(in_flight: usize) -> Patience {
    Patience {
        in_flight,
        total: Duration::from_secs(60),
        poor_answers: 3,
    }
}

/// How often each shown pair was answered with a verdict.
fn answered(dev: &DevJudge) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for question in dev.answered() {
        // Without the fence, which is another one for each call.
        let data = question.lines().nth(2).unwrap_or_default().to_owned();
        *counts.entry(data).or_default() += 1;
    }
    counts
}

#[tokio::test]
async fn a_thousand_calls_over_sockets_with_failures_and_an_outage() {
    let dev = dev(512);
    dev.answer_after(LATENCY);
    dev.fail_every(10);
    let (address, _server) = serve(&dev).await;
    let meter = Arc::new(Meter::new(None, 0, 0));
    let judge = Judge::new(MODEL, &[provider(&address)], patience(32), meter).unwrap();
    let begun = Instant::now();
    // Down for two seconds, beginning at the 300th call.
    dev.go_down_at(300, Duration::from_secs(2));
    let (judged, fresh) = run(&judge, &items(512, "A keeper pours tea"), &Verdicts::new()).await;
    let seconds = begun.elapsed().as_secs_f64();
    assert_eq!(judged.unwrap().len(), 512);
    assert_eq!(fresh.len(), 1024);
    let counts = answered(&dev);
    assert_eq!(counts.len(), 1024);
    assert!(
        counts.values().all(|n| *n == 1),
        "a verdict was paid for twice"
    );
    println!(
        "1,024 verdicts over sockets, 25 ms latency, every 10th call failed, 2 s of outage: \
         {seconds:.2} s, {} calls",
        dev.questions().len()
    );
    assert!(dev.most_in_flight() <= 32);
}

#[tokio::test]
async fn the_second_provider_takes_over() {
    let (first, second) = (dev(64), dev(64));
    let (a, _first) = serve(&first).await;
    let (b, _second) = serve(&second).await;
    let mut providers = [provider(&a), provider(&b)];
    providers[0].bounds.name = "first".to_owned();
    let meter = Arc::new(Meter::new(None, 0, 0));
    let judge = Judge::new(MODEL, &providers, patience(1), meter).unwrap();
    first.misbehave([Misbehaviour::OutOfCredit]);
    let (judged, _) = run(&judge, &items(10, "Tea"), &Verdicts::new()).await;
    assert_eq!(judged.unwrap().len(), 10);
    assert_eq!((first.questions().len(), second.questions().len()), (1, 20));
    assert_eq!(judge.closed(), None, "one of two is well");
}

#[tokio::test]
async fn an_unusable_answer_is_asked_of_another_provider() {
    let (first, second) = (dev(64), dev(64));
    let (a, _first) = serve(&first).await;
    let (b, _second) = serve(&second).await;
    let meter = Arc::new(Meter::new(None, 0, 0));
    let judge = Judge::new(MODEL, &[provider(&a), provider(&b)], patience(1), meter).unwrap();
    first.misbehave([Misbehaviour::Refusal]);
    let (judged, _) = run(&judge, &items(1, "Tea"), &Verdicts::new()).await;
    assert!(judged.is_ok());
    assert_eq!((first.questions().len(), second.questions().len()), (2, 1));
}

#[tokio::test]
async fn what_is_used_is_paid_for_and_the_limit_holds() {
    let prices = Prices {
        usd_per_million_input: 2.5,
        usd_per_million_output: 10.0,
    };
    let meter = Arc::new(Meter::new(Some(100_000), 0, 0));
    let rig = Rig::new(0.0, |settings| {
        settings.prices = prices;
        settings.patience.in_flight = 1;
        settings.meter = Arc::clone(&meter);
    })
    .await;
    rig.dev
        .misbehave([Misbehaviour::Status(500, None), Misbehaviour::BadJson]);
    let (judged, fresh) = rig.run(&items(60, "Tea"), &Verdicts::new()).await;
    let failure = judged.unwrap_err();
    assert_eq!(failure.error.code(), "JUDGE_SPEND_CAP");
    assert!(failure.held && !fresh.is_empty());
    let rows = meter.take_unsaved();
    let [(_, name, spend)] = rows.as_slice() else {
        panic!("{rows:?}");
    };
    assert_eq!(name, "dev");
    // The answer of no use costs too, the failed call does not.
    assert_eq!(spend.calls, u64::try_from(fresh.len()).unwrap() + 1);
    assert!(
        spend.micro_usd <= 100_000 && spend.micro_usd > 80_000,
        "{spend:?}"
    );
    let dearest = prices.micro_usd(assay::scoring::judge::spend::Usage {
        input_tokens: u32::try_from(spend.input_tokens).unwrap(),
        output_tokens: u32::try_from(spend.output_tokens).unwrap(),
    });
    assert!(spend.micro_usd >= dearest && spend.micro_usd <= dearest + spend.calls);
    assert!(matches!(
        rig.judge.closed(),
        Some((_, JudgeError::SpendCap { .. }))
    ));
}
