package mover

import (
	"testing"

	"ferry/internal/repo"
)

// Where other machines are copied beside it, what a machine brings is kept to be stored at once: but no more than a leaf, also if all of it
// is zeros or known and takes no memory as frames. It is written down, and counts as progress, as the copy goes on.
func TestGatheredBlocksAreBounded(t *testing.T) {
	const inRun, runs = 8, 200
	r, _ := newRepository(t, 128<<10)
	ingest, err := r.NewIngest(t.Context(), repo.IngestOptions{})
	if err != nil {
		t.Fatal(err)
	}
	p := point("1", randomDisk("vda", nil))
	p.Objects[0].Size = runs * inRun * (128 << 10)
	content, err := p.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	task := &task{mover: New(ingest, Options{AtOnce: 2}), point: p.Described(), content: content}
	if err := task.prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	o := task.objects[0]
	known := noise(1, 128<<10)
	if _, err := ingest.StoreBlock(t.Context(), ingest.BlockID(known), known, repo.CodecNone); err != nil {
		t.Fatal(err)
	}
	pipe := &pipeline{task: task}
	pipe.sent.Store(runs + 1) // the reader is ahead of the workers, always
	var encoded repo.Encoded
	for n := range runs {
		encoded.Reset()
		for i := range inRun {
			number := int64(n*inRun + i)
			if n%2 == 0 {
				encoded.AddZeros(number, 128<<10)
			} else if err := ingest.Encode(t.Context(), &encoded, number, known, repo.CodecNone); err != nil {
				t.Fatal(err)
			}
		}
		if err := pipe.storeInTurn(t.Context(), run{object: o, turn: turn{number: int64(n + 1)}}, &encoded); err != nil {
			t.Fatal(err)
		}
		if waits := int64((n+1)*inRun) - task.progress.gained.Load(); waits >= gatherBlocks {
			t.Fatalf("%d blocks are kept after %d runs", waits, n+1)
		}
	}
	if err := o.close(); err != nil {
		t.Error(err)
	}
	if err := ingest.Close(t.Context(), nil); err != nil {
		t.Error(err)
	}
}
