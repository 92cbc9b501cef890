package readme

import (
	"bytes"
	"strings"
	"testing"
)

func TestSetBlock(t *testing.T) {
	const page = "# A\n\n## Using\n\ntext\n\n```\n## Try Me\n```\n\n## Last\n\nno end"
	first, err := SetBlock([]byte(page), "a", "one\n")
	if err != nil || string(first) != page+"\n\n## Try Me\n\n<!-- kmi:tryme a begin -->\none\n<!-- kmi:tryme a end -->\n" {
		t.Fatalf("%v\n%s", err, first)
	}
	both, err := SetBlock(first, "b", "two")
	if err != nil || !bytes.HasPrefix(both, first) || !strings.HasSuffix(string(both), "\n\n<!-- kmi:tryme b begin -->\ntwo\n<!-- kmi:tryme b end -->\n") {
		t.Fatalf("%v\n%s", err, both)
	}
	again, err := SetBlock(both, "a", "one and a half\nmore\n\n\n")
	if err != nil || string(again) != strings.Replace(string(both), "\none\n", "\none and a half\nmore\n", 1) {
		t.Errorf("%v\n%s", err, again)
	}
	// Before what follows, with the file's own line ends.
	dos := []byte("## Try Me\r\n\r\nsome words\r\n\r\n## Next\r\n")
	got, err := SetBlock(dos, "a", "x\ny")
	if want := "## Try Me\r\n\r\nsome words\r\n\r\n<!-- kmi:tryme a begin -->\r\nx\r\ny\r\n<!-- kmi:tryme a end -->\r\n\r\n## Next\r\n"; err != nil || string(got) != want {
		t.Errorf("%v\n%q", err, got)
	}
	for _, bad := range []string{"<!-- kmi:tryme a begin -->\n", "<!-- kmi:tryme a end -->\n<!-- kmi:tryme a begin -->\n", "- <!-- kmi:tryme a begin -->\n<!-- kmi:tryme a end -->\n"} {
		if out, err := SetBlock([]byte(bad), "a", "x"); err == nil {
			t.Errorf("%q became %q", bad, out)
		}
	}
}

// Everything outside of the marks stays, whatever the page is.
func FuzzSetBlock(f *testing.F) {
	f.Add("# A\n## Try Me\n\n## B\n", "x")
	f.Add("<!-- kmi:tryme a begin -->\nold\n<!-- kmi:tryme a end -->", "new\n")
	f.Fuzz(func(t *testing.T, page, text string) {
		if strings.HasSuffix(page, "\r") {
			return // half a line end
		}
		out, err := SetBlock([]byte(page), "a", text)
		if err != nil {
			return
		}
		from, to, ok := Block(out, "a")
		if !ok {
			t.Fatalf("there is no block in %q", out)
		}
		if want := strings.TrimRight(text, "\n"); strings.ReplaceAll(strings.TrimRight(string(out[from:to]), "\r\n"), "\r", "") != strings.TrimRight(strings.ReplaceAll(want, "\r", ""), "\n") {
			t.Errorf("%q became %q", want, out[from:to])
		}
		again, err := SetBlock(out, "a", text)
		if err != nil || !bytes.Equal(again, out) {
			t.Errorf("a second time: %v, %q", err, again)
		}
		// What was there is there, byte for byte: something was put in at one place, or put into the block's.
		before, after := []byte(page), []byte(page)
		if of, ot, had := Block([]byte(page), "a"); had {
			before, after = before[:of], after[ot:]
			if !bytes.HasPrefix(out[:from], before) || !bytes.Equal(out[to:], after) {
				t.Errorf("something else changed: %q", out)
			}
			return
		}
		n, k := 0, 0
		for n < len(page) && out[n] == page[n] {
			n++
		}
		for k < len(page)-n && out[len(out)-1-k] == page[len(page)-1-k] {
			k++
		}
		if n+k != len(page) {
			t.Errorf("%q became %q", page, out)
		}
	})
}
