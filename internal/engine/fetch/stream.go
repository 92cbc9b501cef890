package fetch

import (
	"bytes"
	"io"
	"os"
	"sync/atomic"
)

// A stream goes to all its readers at once: each has a goroutine of its own, and the same few buffers go round. Whoever
// is slowest sets the pace; nobody waits for the others longer than the buffers last.
const (
	chunkSize = 256 << 10 // bytes of a buffer
	chunks    = 16        // buffers of a stream
)

type chunk struct {
	data []byte
	n    int
	refs atomic.Int32 // readers that are not through with it
}

// sink is one reader of a stream.
type sink struct {
	w    io.Writer
	fail func(error) // hears of the first error at once; may be nil
	end  func()      // called when the last byte was written, or when the stream broke off; may be nil

	err  error // of w; what comes after it is not written. To be read after pump returned.
	in   chan *chunk
	done chan struct{}
}

func (s *sink) run(free chan<- *chunk) {
	defer close(s.done)
	for c := range s.in {
		if s.err == nil {
			if _, s.err = s.w.Write(c.data[:c.n]); s.err != nil && s.fail != nil {
				s.fail(s.err)
			}
		}
		if c.refs.Add(-1) == 0 {
			free <- c
		}
	}
	if s.end != nil {
		s.end()
	}
}

// pump reads r to its end and gives every byte to every sink. It returns the error of r when all sinks are through; a
// sink that fails does not stop the others.
func pump(r io.Reader, sinks ...*sink) (n int64, err error) {
	free := make(chan *chunk, chunks)
	for range chunks {
		free <- &chunk{}
	}
	for _, s := range sinks {
		s.in, s.done = make(chan *chunk, chunks), make(chan struct{})
		go s.run(free)
	}
	for err == nil {
		c := <-free
		if c.data == nil {
			c.data = make([]byte, chunkSize)
		}
		c.n, err = r.Read(c.data)
		n += int64(c.n)
		if c.n == 0 {
			free <- c
			continue
		}
		c.refs.Store(int32(len(sinks)))
		for _, s := range sinks {
			s.in <- c
		}
	}
	for _, s := range sinks {
		close(s.in)
	}
	for _, s := range sinks {
		<-s.done
	}
	if err == io.EOF {
		err = nil
	}
	return n, err
}

const (
	holeMin = 64 << 10 // bytes of zeros that become a hole
	block   = 4 << 10  // the grain in which zeros are looked for
)

var zeros [holeMin]byte

// sparse writes a file from its beginning and leaves long runs of zeros out.
type sparse struct {
	f    *os.File
	off  int64 // where the next byte goes
	run  int64 // zeros right before off that are not written yet
	skip int64 // bytes at the beginning that are in the file already
}

func (s *sparse) Write(p []byte) (int, error) {
	n := len(p)
	if s.skip > 0 {
		k := min(s.skip, int64(n))
		s.skip -= k
		s.off += k
		if p = p[k:]; len(p) == 0 {
			return n, nil
		}
	}
	data := 0 // p[data:i] waits to be written, but for the zeros at its end
	for i := 0; i < len(p); {
		end := min(len(p), i+block-int((s.off+int64(i))%block))
		if piece := p[i:end]; piece[0] == 0 && bytes.Equal(piece, zeros[:len(piece)]) {
			s.run += int64(len(piece))
			i = end
			continue
		}
		switch carried := s.run - int64(i-data); { // zeros before p, if any
		case s.run >= holeMin:
			if carried < 0 {
				if err := s.put(p[data:i-int(s.run)], data); err != nil {
					return 0, err
				}
			}
			data = i
		case carried > 0 && s.run > 0:
			if _, err := s.f.WriteAt(zeros[:carried], s.off+int64(data)-carried); err != nil {
				return 0, err
			}
		}
		s.run = 0
		i = end
	}
	if tail := len(p) - int(min(s.run, int64(len(p)-data))); tail > data {
		if err := s.put(p[data:tail], data); err != nil {
			return 0, err
		}
	}
	s.off += int64(len(p))
	return n, nil
}

func (s *sparse) put(p []byte, at int) error {
	_, err := s.f.WriteAt(p, s.off+int64(at))
	return err
}

// close gives the file its length and closes it.
func (s *sparse) close() error {
	var err error
	if s.run > 0 {
		err = s.f.Truncate(s.off)
	}
	if cerr := s.f.Close(); err == nil {
		err = cerr
	}
	return err
}
