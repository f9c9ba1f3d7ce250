//! Records that were set aside, read back from their topics.

use std::sync::Arc;

use rdkafka::Message;
use rdkafka::message::{BorrowedMessage, Headers};

use super::readback::{self, ReadbackError};
use super::settings::KafkaSettings;
use crate::outbox::TopicTemplate;
use crate::outbox::aside::Unpacked;
use crate::outlet::Wanted;

/// Everything that is committed in these topics and matches; what has one key in the order of its partition. A topic that is
/// not there has nothing.
pub(super) async fn read(settings: Arc<KafkaSettings>, wanted: Wanted) -> Result<Vec<Unpacked>, String> {
    let topics: Vec<_> = wanted.topics.iter().filter_map(|topic| TopicTemplate::parse(topic).ok()).collect();
    let extents = readback::extents(&settings, &topics).await.map_err(|error| error.to_string())?;
    let reading = readback::blocking(move |given_up| -> Result<_, ReadbackError> {
        let mut found = Vec::new();
        for extent in extents {
            readback::read(&settings, &extent, None, given_up, |seen, message| {
                if seen.key == wanted.key && has(message, &wanted) {
                    found.push(unpacked(message));
                }
                Ok(())
            })?;
        }
        Ok(found)
    });
    reading.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}

fn has(message: &BorrowedMessage<'_>, wanted: &Wanted) -> bool {
    let Some(headers) = message.headers() else { return false };
    let has = |name: &str, value: &str| {
        headers.iter().any(|header| header.key == name && header.value == Some(value.as_bytes()))
    };
    wanted.headers.iter().all(|(name, value)| has(name, value))
}

fn unpacked(message: &BorrowedMessage<'_>) -> Unpacked {
    let headers = message.headers().into_iter().flat_map(Headers::iter);
    let headers = headers.map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec)));
    Unpacked { value: message.payload().map(<[u8]>::to_vec), headers: headers.collect() }
}
