//! One consuming connection: fetches in turn, batches checked for gaps.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    future::poll_fn,
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use kafka_protocol::messages::{
    BrokerId, FetchRequest, TopicName,
    fetch_request::{FetchPartition, FetchTopic},
};
use tidelog_net::client::{Wire, encode_request};

use crate::{
    args::ConsumeArgs,
    codec::{FETCH_VERSION, FetchedPartition, correlation_id, fetch_answer, walk_batches},
    produce::Window,
    stats::Stats,
};

/// How long the broker may keep a fetch that it has nothing for.
const MAX_WAIT_MS: i32 = 100;
/// Rest after an error code, which may be about to heal.
const ERROR_PAUSE: Duration = Duration::from_millis(20);

/// A connection that reads its partitions from their starts to where they ended at the beginning.
pub(crate) struct Consumer {
    pub wire: Wire,
    pub args: Rc<ConsumeArgs>,
    pub topic: TopicName,
    /// By partition: where it starts, where it ended.
    pub ranges: BTreeMap<i32, (i64, i64)>,
    pub window: Window,
    pub stats: Rc<RefCell<Stats>>,
}

impl Consumer {
    /// Reads until the time is up or, without `--repeat`, all ends are reached.
    pub async fn run(mut self) -> Result<()> {
        let mut positions = self.starts();
        let mut correlation_id = 0;
        while Instant::now() < self.window.end {
            if positions.is_empty() {
                if !self.args.repeat {
                    break;
                }
                positions = self.starts();
                ensure!(!positions.is_empty(), "there is nothing to read");
            }
            correlation_id += 1;
            let errors = self.fetch(correlation_id, &mut positions).await?;
            if errors > 0 {
                tokio::time::sleep(ERROR_PAUSE).await;
            }
        }
        Ok(())
    }

    /// Where each partition that holds anything starts.
    fn starts(&self) -> BTreeMap<i32, i64> {
        let held = self.ranges.iter().filter(|(_, (start, end))| start < end);
        held.map(|(partition, (start, _))| (*partition, *start)).collect()
    }

    /// One request and its answer. Partitions that are read to their ends leave `positions`.
    async fn fetch(&mut self, id: i32, positions: &mut BTreeMap<i32, i64>) -> Result<u64> {
        let request = self.request(positions);
        let began = Instant::now();
        self.wire.push(encode_request(&request, FETCH_VERSION, id, "tidelog-bench")?);
        self.wire.flush().await?;
        let (mut outcome, mut errors) = (Ok(()), 0);
        let mut taken = Taken::default();
        while poll_fn(|cx| {
            self.wire.poll_frames(cx, |frame| {
                let answer = take_answer(frame, id, &self.args, positions, &mut taken);
                match answer {
                    Ok(codes) => {
                        errors = codes.len() as u64;
                        let mut stats = self.stats.borrow_mut();
                        codes.into_iter().for_each(|code| stats.error_code(code));
                    }
                    Err(error) => outcome = Err(error),
                }
            })
        })
        .await?
            == 0
        {}
        outcome?;
        positions.retain(|partition, position| *position < self.ranges[partition].1);
        self.count(began, &taken);
        Ok(errors)
    }

    fn request(&self, positions: &BTreeMap<i32, i64>) -> FetchRequest {
        let asked = positions.iter().map(|(partition, position)| {
            FetchPartition::default()
                .with_partition(*partition)
                .with_current_leader_epoch(-1)
                .with_fetch_offset(*position)
                .with_log_start_offset(-1)
                .with_partition_max_bytes(self.args.fetch_bytes)
        });
        let topic =
            FetchTopic::default().with_topic(self.topic.clone()).with_partitions(asked.collect());
        FetchRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_max_wait_ms(MAX_WAIT_MS)
            .with_min_bytes(1)
            .with_max_bytes(self.args.fetch_bytes)
            .with_session_id(0)
            .with_session_epoch(-1)
            .with_topics(vec![topic])
    }

    fn count(&self, began: Instant, taken: &Taken) {
        let now = Instant::now();
        let mut stats = self.stats.borrow_mut();
        if self.window.contains(now) {
            stats.answered(taken.records, taken.bytes);
        }
        let latency = now.saturating_duration_since(began).as_micros();
        stats.latency_us.saturating_record(u64::try_from(latency).unwrap_or(u64::MAX));
    }
}

#[derive(Default)]
struct Taken {
    records: u64,
    bytes: u64,
}

/// Moves the positions on; gives the error codes of the answer.
fn take_answer(
    frame: &[u8],
    id: i32,
    args: &ConsumeArgs,
    positions: &mut BTreeMap<i32, i64>,
    taken: &mut Taken,
) -> Result<Vec<i16>> {
    let answered = correlation_id(frame)?;
    ensure!(answered == id, "an answer to request {answered} where {id} was asked");
    let mut codes = Vec::new();
    let mut on_partition = |fetched: FetchedPartition<'_>| -> Result<()> {
        let position = positions.get_mut(&fetched.partition);
        let Some(position) = position else {
            anyhow::bail!("an answer for partition {}, not asked for", fetched.partition);
        };
        if fetched.error_code != 0 {
            codes.push(fetched.error_code);
            return Ok(());
        }
        let batches = walk_batches(fetched.records, *position, args.check_crcs)?;
        let (next, high_watermark) = (batches.next_offset, fetched.high_watermark);
        ensure!(next <= high_watermark, "offset {next} is past high watermark {high_watermark}");
        *position = next;
        taken.records += batches.records;
        taken.bytes += batches.bytes;
        Ok(())
    };
    let code = fetch_answer(frame, &mut on_partition)?;
    codes.extend(Some(code).filter(|code| *code != 0));
    Ok(codes)
}
