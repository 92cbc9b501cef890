package install

import (
	"archive/tar"
	"compress/gzip"
	"fmt"
	"io"
	"strings"
	"testing"
)

func TestArchive(t *testing.T) {
	texts := map[string]string{"install.site": "#!/bin/ksh\n", "etc/x": ""}
	if archived(texts) != archived(texts) {
		t.Error("two archives of the same differ")
	}
	z, err := gzip.NewReader(strings.NewReader(archived(texts)))
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		data, _ := io.ReadAll(r)
		got += fmt.Sprintf("%s %o %q ", h.Name, h.Mode, data)
	}
	if got != `etc/x 755 "" install.site 755 "#!/bin/ksh\n" ` {
		t.Error(got)
	}
}
