//! The scheduler over a paused clock: hours pass in milliseconds, in the order of a real run.

use super::*;
use futures::StreamExt;
use std::collections::HashSet;

const LATENCY: Duration = Duration::from_millis(2500);
const USAGE: Usage = Usage {
    input_tokens: 1300,
    output_tokens: 120,
};

fn bounds(name: &str) -> Bounds {
    Bounds {
        name: name.to_owned(),
        requests_per_minute: None,
        tokens_per_minute: None,
        prices: Prices {
            usd_per_million_input: 2.5,
            usd_per_million_output: 10.0,
        },
    }
}

fn patience(in_flight: usize) -> Patience {
    Patience {
        in_flight,
        total: Duration::from_secs(7200),
        poor_answers: 3,
    }
}

fn pool(names: &[&str], cap_micro_usd: Option<u64>) -> Pool {
    let meter = Meter::new(cap_micro_usd, day_of(now_ms()), 0);
    let providers = names.iter().map(|name| bounds(name)).collect();
    Pool::new(providers, patience(32), Arc::new(meter))
}

fn good(value: usize) -> Call<usize> {
    Call {
        result: Ok(value),
        usage: Some(USAGE),
        answered: true,
    }
}

fn bad(error: JudgeError) -> Call<usize> {
    Call {
        answered: error.is_poor_answer(),
        result: Err(error),
        usage: None,
    }
}

fn down() -> JudgeError {
    JudgeError::Unavailable("status 503".to_owned())
}

/// What a run of questions 0.. came to.
#[derive(Debug, Default)]
struct Run {
    /// Answered questions; each at most once, or the run panics.
    answered: HashSet<usize>,
    failure: Option<JudgeFailure>,
    seconds: f64,
}

async fn run<F, Fut>(pool: &Pool, questions: usize, call: F) -> Run
where
    F: Fn(usize, &usize) -> Fut + Clone,
    Fut: Future<Output = Call<usize>>,
{
    let begun = Instant::now();
    let mut run = Run::default();
    let all: Vec<_> = (0..questions).collect();
    let mut answers = std::pin::pin!(pool.ask_all(all, |_| USAGE, call));
    while let Some(answer) = answers.next().await {
        match answer {
            Ok((at, value)) => {
                assert_eq!(at, value);
                assert!(run.answered.insert(at), "question {at} was answered twice");
            }
            Err(failure) => drop(run.failure.get_or_insert(failure)),
        }
    }
    run.seconds = begun.elapsed().as_secs_f64();
    run
}

#[tokio::test(start_paused = true)]
async fn a_thousand_calls_keep_all_their_seats_busy() {
    let pool = pool(&["a"], None);
    let run = run(&pool, 512 * 2, |_, question| {
        let question = *question;
        async move {
            sleep(LATENCY).await;
            good(question)
        }
    })
    .await;
    println!(
        "1,024 calls of 2.5 s, 32 in flight: {:.1} s, ideal 80 s",
        run.seconds
    );
    assert_eq!(run.answered.len(), 1024);
    assert!((80.0..=88.0).contains(&run.seconds), "{}", run.seconds);
    let spent = pool.meter.spent(day_of(now_ms()));
    assert_eq!(spent, 1024 * 4450, "millionths of a dollar");
}

/// Fails by a counter, not by chance: every tenth call, and all of them within an outage.
#[tokio::test(start_paused = true)]
async fn failures_and_an_outage_lose_nothing_and_judge_nothing_twice() {
    let pool = pool(&["a"], None);
    let begun = Instant::now();
    let outage = Duration::from_secs(30)..Duration::from_secs(330);
    let calls = std::cell::Cell::new(0u32);
    let (calls, outage) = (&calls, &outage);
    let run = run(&pool, 512 * 2, |_, question| {
        let question = *question;
        async move {
            calls.set(calls.get() + 1);
            let tenth = calls.get() % 10 == 0;
            if outage.contains(&begun.elapsed()) {
                sleep(Duration::from_millis(20)).await;
                return bad(down());
            }
            sleep(LATENCY).await;
            if tenth { bad(down()) } else { good(question) }
        }
    })
    .await;
    println!(
        "10 % failures and 300 s of outage: {:.1} s, {} calls for 1,024 verdicts",
        run.seconds,
        calls.get()
    );
    assert_eq!((run.answered.len(), run.failure), (1024, None));
    // 80 s of work with a ninth more calls, the outage, and its last rest of at most 30 s.
    assert!(
        run.seconds < (80.0 / 0.9 + 300.0 + 30.0) * 1.1,
        "{}",
        run.seconds
    );
    // Besides one failure for nine answers: those in flight when it began, and one trial per rest.
    let wasted = calls.get() - 1024;
    assert!((113..=113 + 64 + 20).contains(&wasted), "{wasted}");
    assert_eq!(pool.meter.spent(day_of(now_ms())), 1024 * 4450);
}

#[tokio::test(start_paused = true)]
async fn the_next_provider_takes_over_and_the_first_comes_back() {
    let pool = pool(&["a", "b"], None);
    let begun = Instant::now();
    let asked = std::cell::RefCell::new(Vec::new());
    let asked = &asked;
    let run = run(&pool, 2000, |provider, question| {
        let question = *question;
        async move {
            asked.borrow_mut().push((provider, begun.elapsed()));
            sleep(LATENCY).await;
            if provider == 0 && begun.elapsed() < Duration::from_secs(60) {
                bad(JudgeError::Throttled(Some(Duration::from_secs(20))))
            } else {
                good(question)
            }
        }
    })
    .await;
    assert_eq!(run.answered.len(), 2000);
    let of = |provider| {
        asked
            .borrow()
            .iter()
            .filter(|(p, _)| *p == provider)
            .count()
    };
    assert!(of(1) > 500 && of(0) > 500, "{} and {}", of(0), of(1));
    let back = asked
        .borrow()
        .iter()
        .rev()
        .find(|(p, _)| *p == 1)
        .map(|(_, at)| *at);
    assert!(back < Some(Duration::from_secs(100)), "{back:?}");
    assert!(run.seconds < 170.0, "{}", run.seconds);
}

#[tokio::test(start_paused = true)]
async fn what_only_a_person_can_mend_ends_the_batch_and_closes_the_pool() {
    let pool = pool(&["a"], None);
    let dead = |_: usize, _: &usize| async { bad(JudgeError::Credit) };
    let run = run(&pool, 100, dead).await;
    let failure = run.failure.unwrap();
    assert_eq!(failure, JudgeFailure::held(JudgeError::Credit));
    let (rest, why) = pool.closed().unwrap();
    assert_eq!((rest, why), (Duration::from_secs(600), JudgeError::Credit));
    tokio::time::advance(rest).await;
    assert_eq!(pool.closed(), None);
    let run = self::run(&pool, 100, |_, q| std::future::ready(good(*q))).await;
    assert_eq!(run.answered.len(), 100, "topped up, it goes on by itself");
}

#[tokio::test(start_paused = true)]
async fn one_hopeless_question_ends_its_batch_and_not_the_provider() {
    for (error, calls_max) in [(JudgeError::Declined, 3), (down(), TRIES_MAX)] {
        let pool = pool(&["a"], None);
        let calls = std::cell::Cell::new(0);
        let (calls, error) = (&calls, &error);
        let run = run(&pool, 64, |_, question| {
            let question = *question;
            async move {
                sleep(LATENCY).await;
                if question == 5 {
                    calls.set(calls.get() + 1);
                    return bad(error.clone());
                }
                good(question)
            }
        })
        .await;
        assert!(calls.get() <= calls_max, "{} calls", calls.get());
        assert_eq!(run.failure, Some(JudgeFailure::question(error.clone())));
        assert_eq!(run.answered.len(), 63);
        let rest = pool.closed().map(|(rest, _)| rest);
        assert!(rest <= Some(Duration::from_secs(30)));
    }
}

#[tokio::test(start_paused = true)]
async fn an_endless_outage_ends_with_patience() {
    let pool = pool(&["a"], None);
    let run = run(&pool, 10, |_, _| async { bad(down()) }).await;
    assert_eq!(run.failure, Some(JudgeFailure::held(down())));
    assert!((7000.0..=7300.0).contains(&run.seconds), "{}", run.seconds);
}

#[tokio::test(start_paused = true)]
async fn the_daily_limit_is_never_exceeded() {
    // Room for 500 calls at their dearest price.
    let pool = pool(&["a"], Some(500 * 4450));
    let run = run(&pool, 1024, |_, question| {
        let question = *question;
        async move {
            sleep(LATENCY).await;
            good(question)
        }
    })
    .await;
    let cap_micro_usd = 500 * 4450;
    let failure = run.failure.unwrap();
    assert_eq!(
        failure,
        JudgeFailure::held(JudgeError::SpendCap { cap_micro_usd })
    );
    assert_eq!(run.answered.len(), 500);
    assert_eq!(pool.meter.spent(day_of(now_ms())), cap_micro_usd);
    assert!(pool.closed().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_minutes_allowance_is_kept() {
    let limited = Bounds {
        requests_per_minute: NonZeroU32::new(600),
        ..bounds("a")
    };
    let meter = Arc::new(Meter::new(None, 0, 0));
    let pool = Pool::new(vec![limited], patience(256), meter);
    let run = run(&pool, 700, |_, q| std::future::ready(good(*q))).await;
    // 100 at once, 600 in the minute after.
    assert!((59.0..=61.0).contains(&run.seconds), "{}", run.seconds);
}
