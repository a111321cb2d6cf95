package repotest

import (
	"math/rand/v2"
	"sync"
)

// Pauses makes some of the calls of processes wait until others have made many. One process at least goes on.
type Pauses struct {
	mu     sync.Mutex
	turn   *sync.Cond
	calls  int
	random *rand.Rand
	// live processes, and those that wait.
	live, waiting int
}

// NewPauses makes those of a seed. Whose call waits depends on who comes first, too.
func NewPauses(seed uint64) *Pauses {
	p := &Pauses{random: rand.New(rand.NewPCG(seed, 1))}
	p.turn = sync.NewCond(&p.mu)
	return p
}

// Run runs one process.
func (p *Pauses) Run(group *sync.WaitGroup, process func()) {
	p.mu.Lock()
	p.live++
	p.mu.Unlock()
	group.Go(func() {
		process()
		p.mu.Lock()
		p.live--
		p.turn.Broadcast()
		p.mu.Unlock()
	})
}

// Draw returns a number from 0 to n-1.
func (p *Pauses) Draw(n int) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.random.IntN(n)
}

// Call counts a call, and is true for one in so many, which is to wait.
func (p *Pauses) Call(oneIn int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls++
	p.turn.Broadcast()
	return p.random.IntN(oneIn) == 0
}

// Wait keeps a process waiting until others have made so many calls and enough, unless it is nil, is true; or until nobody
// else goes on. enough is asked at each call of another.
func (p *Pauses) Wait(calls int, enough func() bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiting++
	for until := p.calls + calls; (p.calls < until || enough != nil && !enough()) && p.waiting < p.live; {
		p.turn.Wait()
	}
	p.waiting--
}
