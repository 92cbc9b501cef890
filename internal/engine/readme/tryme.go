package readme

import (
	"bytes"
	"fmt"
	"strings"
)

// tryMark are the lines between which README.md holds a flavor's Try Me.
func tryMarks(flavor string) (begin, end string) {
	return fmt.Sprintf("<!-- kmi:tryme %s begin -->", flavor), fmt.Sprintf("<!-- kmi:tryme %s end -->", flavor)
}

// tryHeading is the section that they are in.
const tryHeading = "## Try Me"

// Block finds what README.md has between a flavor's marks; from and to are bytes, without the lines of the marks.
func Block(readme []byte, flavor string) (from, to int, ok bool) {
	begin, end := tryMarks(flavor)
	from, to = -1, -1
	offset := 0
	for _, line := range bytes.SplitAfter(readme, []byte("\n")) {
		switch strings.TrimRight(string(line), " \t\r\n") {
		case begin:
			if from >= 0 {
				return 0, 0, false // twice
			}
			from = offset + len(line)
		case end:
			if from < 0 || to >= 0 {
				return 0, 0, false
			}
			to = offset
		}
		offset += len(line)
	}
	return from, to, from >= 0 && to >= from
}

// SetBlock returns the README with a flavor's Try Me between its marks, with the line ends that the file has, and every
// other byte as it was. The first of a
// flavor goes to the end of the section Try Me, the first of all into a new one at the end of the file. Marks that are
// there and do not make a block are an error, and so are marks in the text.
func SetBlock(readme []byte, flavor, text string) ([]byte, error) {
	begin, end := tryMarks(flavor)
	ending := "\n"
	if bytes.Contains(readme, []byte("\r\n")) {
		ending = "\r\n"
	}
	text = strings.ReplaceAll(strings.TrimRight(strings.ReplaceAll(text, "\r", ""), "\n")+"\n", "\n", ending)
	if strings.Contains(text, begin) || strings.Contains(text, end) {
		return nil, fmt.Errorf("the text has %s or %s in it: the next one to write would not find its end", begin, end)
	}
	if from, to, ok := Block(readme, flavor); ok {
		return bytes.Join([][]byte{readme[:from], []byte(text), readme[to:]}, nil), nil
	}
	if bytes.Contains(readme, []byte(begin)) || bytes.Contains(readme, []byte(end)) {
		return nil, fmt.Errorf("%s and %s are not a pair of lines of their own: put that right first", begin, end)
	}
	block := begin + ending + text + end + ending
	// The end of the section: before the next heading of its level or above.
	offset, at, inside, fence := 0, -1, false, false
	for _, line := range bytes.SplitAfter(readme, []byte("\n")) {
		bare := strings.TrimRight(string(line), " \t\r\n")
		if strings.HasPrefix(bare, "```") {
			fence = !fence
		}
		if inside && !fence && (strings.HasPrefix(bare, "## ") || strings.HasPrefix(bare, "# ")) {
			at = offset
			break
		}
		inside = inside || !fence && bare == tryHeading
		offset += len(line)
	}
	switch {
	case at >= 0:
		return bytes.Join([][]byte{readme[:at], []byte(block + ending), readme[at:]}, nil), nil
	case inside:
		return append(closed(readme, ending), []byte(ending+block)...), nil
	}
	return append(closed(readme, ending), []byte(ending+tryHeading+ending+ending+block)...), nil
}

// closed is a text whose last line ends.
func closed(text []byte, ending string) []byte {
	out := bytes.Clone(text)
	if len(out) > 0 && !bytes.HasSuffix(out, []byte("\n")) {
		out = append(out, ending...)
	}
	return out
}
