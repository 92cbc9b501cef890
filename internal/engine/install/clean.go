package install

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxString is how many bytes a control string (a title, a bitmap) may have before its end is given up: what follows
// would otherwise never be seen.
const maxString = 4096

// cleaner takes the control sequences (ECMA-48) out of a stream that comes in pieces of any size. What is left is valid
// UTF-8 of printable characters, spaces, line ends and '\b'; a carriage return and a jump of the cursor become a line
// end, which is not repeated.
type cleaner struct {
	state  byte   // 0, or the introducer of what is being passed over: esc, '[', ']' (any string), '\\' (esc in a string)
	passed int    // bytes of it
	rune   []byte // a character whose end has not come yet
	ended  bool   // the last thing was a line end of our own making: one by the guest adds nothing
	fresh  bool   // something was printed since the last line end
}

const esc = 0x1b

// feed returns what is left of p.
func (c *cleaner) feed(p []byte) string {
	var out strings.Builder
	out.Grow(len(p))
	if len(c.rune) > 0 {
		p = append(c.rune, p...)
		c.rune = nil
	}
	for i := 0; i < len(p); {
		b := p[i]
		switch c.state {
		case 0:
			if !utf8.FullRune(p[i:]) {
				c.rune = slices.Clone(p[i:])
				return out.String()
			}
			r, n := utf8.DecodeRune(p[i:])
			c.put(&out, r)
			i += n
			continue
		case esc:
			c.escape(b)
		case '[':
			switch {
			case b >= 0x40 && b <= 0x7e:
				c.state = 0
				if strings.IndexByte("ABEFGHfdSTJ", b) >= 0 { // the cursor goes elsewhere
					c.jump(&out)
				} else if b == 'C' {
					c.put(&out, ' ')
				}
			case b < 0x20 || b > 0x3f:
				c.state = 0 // broken: this byte is looked at by itself
				continue
			}
		case ']', '\\':
			switch {
			case c.state == '\\' && b == '\\' || b == 0x07:
				c.state = 0
			case b == esc:
				c.state = '\\'
			default:
				c.state = ']'
			}
		}
		i++
		if c.passed++; c.passed > maxString {
			c.state = 0
		}
	}
	return out.String()
}

// escape takes the character after an escape.
func (c *cleaner) escape(b byte) {
	switch {
	case b == '[':
		c.state = '['
	case strings.IndexByte("]P_^X", b) >= 0:
		c.state = ']'
	case b >= 0x20 && b <= 0x2f: // more of them, then a final one
	default:
		c.state = 0
	}
}

func (c *cleaner) put(out *strings.Builder, r rune) {
	switch {
	case r == esc:
		c.state, c.passed = esc, 0
		return
	case r == '\n':
		if !c.ended {
			out.WriteByte('\n')
		}
		c.ended, c.fresh = false, false
		return
	case r == '\r':
		c.jump(out)
		return
	case r == '\t':
		r = ' '
	case r == '\b':
	case unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || unicode.Is(unicode.Zl, r) || unicode.Is(unicode.Zp, r):
		return
	}
	c.ended, c.fresh = false, r != '\b'
	out.WriteRune(r)
}

// jump ends a line on which something stands.
func (c *cleaner) jump(out *strings.Builder) {
	if c.fresh {
		out.WriteByte('\n')
		c.ended, c.fresh = true, false
	}
}
