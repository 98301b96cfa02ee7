// A peer of the persist worker: each message's bytes become a file, and nothing else is done.
//
//	go_peer [fsync]
//
// The loop that a Go programmer writes first: poll, write each record to a file of its own, one
// after another, commit the offsets. It does not judge, hash, list or publish, and without `fsync`
// a power cut takes what it has committed. After each commit it says how many records it has taken
// and when: `COUNT UNIX_SECONDS`. Broker, prefix and folder are in the environment, as for the worker.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

func main() {
	fsync := len(os.Args) > 1 && os.Args[1] == "fsync"
	prefix := os.Getenv("RMOS_PREFIX")
	folder := filepath.Join(os.Getenv("RMOS_DATA_DIR"), "runs")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		log.Fatal(err)
	}
	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer cancel()
	client, err := kgo.NewClient(
		kgo.SeedBrokers(os.Getenv("RMOS_BOOTSTRAP_SERVERS")),
		kgo.ConsumeTopics(prefix+".runs.requests"),
		kgo.ConsumerGroup(prefix+".persist"),
		kgo.DisableAutoCommit(),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
	)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	if err := consume(stop, client, folder, fsync); err != nil {
		log.Fatal(err)
	}
}

func consume(stop context.Context, client *kgo.Client, folder string, fsync bool) error {
	count := 0
	for {
		fetches := client.PollFetches(stop)
		if stop.Err() != nil {
			return nil
		}
		if err := fetches.Err(); err != nil {
			return err
		}
		for _, record := range fetches.Records() {
			if err := write(folder, record, fsync); err != nil {
				return err
			}
		}
		if err := client.CommitUncommittedOffsets(stop); err != nil {
			return err
		}
		count += fetches.NumRecords()
		fmt.Printf("%d %.6f\n", count, float64(time.Now().UnixMicro())/1e6)
	}
}

func write(folder string, record *kgo.Record, fsync bool) (err error) {
	path := filepath.Join(folder, string(record.Key)+".json")
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o444)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if _, err = file.Write(record.Value); err == nil && fsync {
		err = file.Sync()
	}
	return err
}
