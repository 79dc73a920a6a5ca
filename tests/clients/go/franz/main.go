// What a Go service does with franz-go and its kadm.
package main

import (
	"context"
	"os"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidelog.dev/clients/judge"
)

const topic = "franz"

type program struct {
	brokers string
	context context.Context
	admin   *kadm.Client
	// How many records each partition of the topic has.
	written int64
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 4*judge.Patience)
	defer cancel()
	p := &program{brokers: os.Args[1], context: ctx}
	p.reconnects()
	p.createsTheTopic()
	p.producesInEveryWay()
	p.readsEverything()
	p.findsOffsetsByTimestamp()
	p.startsAtTheEnd()
	p.altersSettings()
	p.deletesRecords()
	p.addsPartitions()
	p.deletesAndCreatesAgain()
	p.admin.Close()
	judge.Done()
}

// Forgets what is known of topics, which else is remembered for some seconds.
func (p *program) reconnects() {
	if p.admin != nil {
		p.admin.Close()
	}
	p.admin = kadm.NewClient(connect(p.brokers))
}

func connect(brokers string, options ...kgo.Opt) *kgo.Client {
	client, err := kgo.NewClient(append(options, kgo.SeedBrokers(brokers))...)
	judge.Must(err)
	return client
}

func (p *program) createsTheTopic() {
	segmentBytes := judge.SegmentBytes
	configs := map[string]*string{"segment.bytes": &segmentBytes}
	created, err := p.admin.CreateTopic(p.context, judge.Partitions, -1, configs, topic)
	judge.Must(err)
	judge.Equal("partitions created", int32(judge.Partitions), created.NumPartitions)
	_, err = p.admin.CreateTopic(p.context, 1, 1, nil, topic)
	judge.Fails("TOPIC_ALREADY_EXISTS", err)
	listed, err := p.admin.ListTopics(p.context, topic)
	judge.Must(err)
	judge.Equal("partitions listed", judge.Partitions, len(listed[topic].Partitions))
	judge.Equal("topic id", created.ID, listed[topic].ID)
}

func (p *program) producesInEveryWay() {
	codecs := map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
		"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	}
	acks := []kgo.Acks{kgo.NoAck(), kgo.LeaderAck(), kgo.AllISRAcks()}
	for _, name := range judge.Codecs {
		codec := kgo.ProducerBatchCompression(codecs[name])
		for _, acks := range acks {
			p.produces(codec, kgo.RequiredAcks(acks), kgo.DisableIdempotentWrite())
		}
		p.produces(codec) // idempotent, which is the default
	}
}

func (p *program) produces(options ...kgo.Opt) {
	client := connect(p.brokers, append(options, kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	defer client.Close()
	var records []*kgo.Record
	for number := p.written; number < p.written+judge.Burst; number++ {
		for partition := range int32(judge.Partitions) {
			records = append(records, record(partition, number))
		}
	}
	judge.Must(client.ProduceSync(p.context, records...).FirstErr())
	p.written += judge.Burst
	// Without acknowledgements, this is when the next producer comes behind this one.
	judge.Eventually("everything sent is there", func() bool { return p.end(0, 1, 2) })
}

func record(partition int32, number int64) *kgo.Record {
	written := judge.Written(partition, number)
	record := &kgo.Record{
		Topic: topic, Partition: partition, Key: written.Key, Value: written.Value,
		Timestamp: written.Timestamp,
	}
	for _, header := range written.Headers {
		record.Headers = append(record.Headers, kgo.RecordHeader(header))
	}
	return record
}

// Whether these partitions have as many records as were written to each.
func (p *program) end(partitions ...int32) bool {
	ends, err := p.admin.ListEndOffsets(p.context, topic)
	judge.Must(err)
	judge.Must(ends.Error())
	for _, partition := range partitions {
		end, _ := ends.Lookup(topic, partition)
		judge.Check(end.Offset <= p.written, "expected %d records, saw %d", p.written, end.Offset)
		if end.Offset < p.written {
			return false
		}
	}
	return true
}

func (p *program) readsEverything() {
	p.reads(kgo.NewOffset().AtStart(), 0)
}

// Reads every partition from an offset, where the record with this number is, to its end.
func (p *program) reads(offset kgo.Offset, number int64) {
	ctx, cancel := context.WithTimeout(p.context, judge.Patience)
	defer cancel()
	from := map[int32]kgo.Offset{}
	next := map[int32]int64{}
	for partition := range int32(judge.Partitions) {
		from[partition] = offset
		next[partition] = number
	}
	consumer := connect(p.brokers,
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: from}),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()))
	defer consumer.Close()
	for left := judge.Partitions * (p.written - number); left > 0; {
		fetches := consumer.PollFetches(ctx)
		judge.Check(ctx.Err() == nil, "expected %d more records, saw none; came to %v", left, next)
		judge.Must(fetches.Err())
		fetches.EachRecord(func(record *kgo.Record) {
			compare(record.Partition, next[record.Partition], record)
			next[record.Partition]++
			left--
		})
	}
}

func compare(partition int32, number int64, got *kgo.Record) {
	seen := judge.Record{Key: got.Key, Value: got.Value, Timestamp: got.Timestamp}
	for _, header := range got.Headers {
		seen.Headers = append(seen.Headers, judge.Header(header))
	}
	judge.Compare(partition, number, got.Offset, seen)
}

func (p *program) findsOffsetsByTimestamp() {
	for _, number := range []int64{0, 1, 99, 100, 1234, p.written - 1} {
		millis := judge.At(number).UnixMilli() - 500
		found, err := p.admin.ListOffsetsAfterMilli(p.context, millis, topic)
		judge.Must(err)
		offset, _ := found.Lookup(topic, 2)
		judge.Equal("offset by timestamp", number, offset.Offset)
		judge.Equal("timestamp found", judge.At(number).UnixMilli(), offset.Timestamp)
		p.reads(kgo.NewOffset().AfterMilli(millis), number)
	}
}

func (p *program) startsAtTheEnd() {
	consumer := connect(p.brokers, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{
		topic: {1: kgo.NewOffset().At(p.written)},
	}), kgo.ConsumeResetOffset(kgo.NoResetOffset()))
	defer consumer.Close()
	p.produces()
	fetches := consumer.PollFetches(p.context)
	judge.Must(fetches.Err())
	compare(1, p.written-judge.Burst, fetches.Records()[0])
}

func (p *program) altersSettings() {
	judge.Equal("segment.bytes", judge.SegmentBytes, p.setting("segment.bytes"))
	bytes := "2000000"
	set := []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "max.message.bytes", Value: &bytes}}
	altered, err := p.admin.AlterTopicConfigs(p.context, set, topic)
	judge.Must(err)
	judge.Must(altered[0].Err)
	judge.Equal("max.message.bytes", bytes, p.setting("max.message.bytes"))
	judge.Equal("segment.bytes still", judge.SegmentBytes, p.setting("segment.bytes"))
	wrong := []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "no.such.setting", Value: &bytes}}
	altered, err = p.admin.AlterTopicConfigs(p.context, wrong, topic)
	judge.Must(err)
	judge.Fails("INVALID_CONFIG", altered[0].Err)
	unset := []kadm.AlterConfig{{Op: kadm.DeleteConfig, Name: "max.message.bytes"}}
	altered, err = p.admin.AlterTopicConfigs(p.context, unset, topic)
	judge.Must(err)
	judge.Must(altered[0].Err)
	judge.Equal("max.message.bytes by default", "1048588", p.setting("max.message.bytes"))
}

func (p *program) setting(name string) string {
	described, err := p.admin.DescribeTopicConfigs(p.context, topic)
	judge.Must(err)
	judge.Must(described[0].Err)
	for _, config := range described[0].Configs {
		if config.Key == name {
			return config.MaybeValue()
		}
	}
	return "not described"
}

func (p *program) deletesRecords() {
	const before = 150
	offsets := kadm.Offsets{}
	offsets.AddOffset(topic, 0, before, -1)
	deleted, err := p.admin.DeleteRecords(p.context, offsets)
	judge.Must(err)
	judge.Must(deleted.Error())
	answer, _ := deleted.Lookup(topic, 0)
	judge.Equal("low watermark", int64(before), answer.LowWatermark)
	starts, err := p.admin.ListStartOffsets(p.context, topic)
	judge.Must(err)
	start, _ := starts.Lookup(topic, 0)
	judge.Equal("log start offset", int64(before), start.Offset)
	consumer := connect(p.brokers, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{
		topic: {0: kgo.NewOffset().AtStart()},
	}))
	defer consumer.Close()
	fetches := consumer.PollFetches(p.context)
	judge.Must(fetches.Err())
	compare(0, before, fetches.Records()[0])
}

func (p *program) addsPartitions() {
	added, err := p.admin.UpdatePartitions(p.context, judge.Partitions+2, topic)
	judge.Must(err)
	judge.Must(added.Error())
	p.reconnects()
	listed, err := p.admin.ListTopics(p.context, topic)
	judge.Must(err)
	judge.Equal("partitions", judge.Partitions+2, len(listed[topic].Partitions))
	p.writesTheFirstRecord(judge.Partitions + 1)
	fewer, err := p.admin.UpdatePartitions(p.context, 1, topic)
	judge.Must(err)
	judge.Fails("INVALID_PARTITIONS", fewer.Error())
}

func (p *program) deletesAndCreatesAgain() {
	old, err := p.admin.ListTopics(p.context, topic)
	judge.Must(err)
	_, err = p.admin.DeleteTopic(p.context, topic)
	judge.Must(err)
	_, err = p.admin.DeleteTopic(p.context, topic)
	judge.Fails("UNKNOWN_TOPIC_OR_PARTITION", err)
	created, err := p.admin.CreateTopic(p.context, 1, 1, nil, topic)
	judge.Must(err)
	p.reconnects()
	judge.Check(created.ID != old[topic].ID, "expected a new topic id, saw %v again", created.ID)
	p.written = 0
	judge.Check(p.end(0), "expected an empty topic")
	p.writesTheFirstRecord(0)
}

// Writes one record to an empty partition, and reads it back.
func (p *program) writesTheFirstRecord(partition int32) {
	producer := connect(p.brokers, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	defer producer.Close()
	sent, err := producer.ProduceSync(p.context, record(partition, 0)).First()
	judge.Must(err)
	judge.Equal("first offset", int64(0), sent.Offset)
	consumer := connect(p.brokers, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{
		topic: {partition: kgo.NewOffset().AtStart()},
	}))
	defer consumer.Close()
	fetches := consumer.PollFetches(p.context)
	judge.Must(fetches.Err())
	judge.Equal("records of an empty partition after one", 1, fetches.NumRecords())
	compare(partition, 0, fetches.Records()[0])
}
