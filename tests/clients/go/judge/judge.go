// Package judge holds what the Go programs share: the records that they write, and the check that
// what comes back is what went in.
package judge

import (
	"bytes"
	"fmt"
	"math/rand"
	"os"
	"runtime/debug"
	"strings"
	"time"
)

const (
	// Partitions of the topic that is written and read.
	Partitions = 3
	// Burst is how many records one producer writes to each partition.
	Burst = 100
	// SegmentBytes makes what is written span several segment files.
	SegmentBytes = "262144"
	// Patience is how long a call may take.
	Patience = 30 * time.Second
)

// Codecs by the names that Kafka gives them.
var Codecs = []string{"none", "gzip", "snappy", "lz4", "zstd"}

var start = time.Now().Add(-time.Hour).Truncate(time.Millisecond)

// Header is one header of a record; a record may have several of one key.
type Header struct {
	Key   string
	Value []byte
}

// Record is what a program writes, and what it has to read back.
type Record struct {
	Key, Value []byte
	Headers    []Header
	Timestamp  time.Time
}

// Written is the record with this number in this partition. Its number is its offset.
func Written(partition int32, number int64) Record {
	random := rand.New(rand.NewSource(int64(partition)<<32 | number))
	value := make([]byte, number*37%2000) // now and then empty
	random.Read(value)
	record := Record{
		Value: value,
		Headers: []Header{
			{"number", []byte(fmt.Sprint(number))},
			{"number", []byte("again")},
			{"empty", []byte{}},
		},
		Timestamp: At(number),
	}
	if number%10 != 9 { // the others have no key
		record.Key = []byte(fmt.Sprintf("key-%d-%d", partition, number))
	}
	return record
}

// At is the timestamp of the record with this number.
func At(number int64) time.Time {
	return start.Add(time.Duration(number) * time.Second)
}

// Compare ends the program if a record that was read is not the one that was written.
func Compare(partition int32, expectedOffset, offset int64, got Record) {
	at := fmt.Sprintf("partition %d, offset %d", partition, expectedOffset)
	Equal(at+": offset", expectedOffset, offset)
	expected := Written(partition, expectedOffset)
	Check(bytes.Equal(expected.Key, got.Key) && (expected.Key == nil) == (got.Key == nil),
		"%s: expected key %q, saw %q", at, expected.Key, got.Key)
	Check(bytes.Equal(expected.Value, got.Value),
		"%s: expected a value of %d bytes, %.20q.., saw %d bytes, %.20q..",
		at, len(expected.Value), expected.Value, len(got.Value), got.Value)
	Equal(at+": timestamp", expected.Timestamp.UnixMilli(), got.Timestamp.UnixMilli())
	Equal(at+": headers", fmt.Sprintf("%q", expected.Headers), fmt.Sprintf("%q", got.Headers))
}

// Equal ends the program if what was seen is not what was expected.
func Equal[T comparable](what string, expected, saw T) {
	Check(expected == saw, "%s: expected %v, saw %v", what, expected, saw)
}

// Check ends the program with what was expected and seen, and where, unless it holds.
func Check(holds bool, format string, arguments ...any) {
	if !holds {
		fmt.Printf(format+"\n%s", append(arguments, debug.Stack())...)
		os.Exit(1)
	}
}

// Must ends the program on an error.
func Must(err error) {
	Check(err == nil, "expected no error, saw: %v", err)
}

// Fails ends the program unless the error says this.
func Fails(text string, err error) {
	Check(err != nil && strings.Contains(err.Error(), text), "expected %q, saw %v", text, err)
}

// Eventually looks again until the condition holds.
func Eventually(what string, holds func() bool) {
	for deadline := time.Now().Add(Patience); !holds(); time.Sleep(10 * time.Millisecond) {
		Check(time.Now().Before(deadline), "not within %v: %s", Patience, what)
	}
}

// Done says what the caller looks for.
func Done() {
	fmt.Println("all good")
}
