package vzdump

import (
	"regexp"
	"slices"
	"strings"
)

// maxConfigSize in bytes of a container's configuration that is looked at.
const maxConfigSize = 64 << 10

var uuidPattern = regexp.MustCompile(`^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$`)

// guestConfig is what qemu-server.conf or pct.conf say about their machine. It is data: nothing named in it is opened.
type guestConfig struct {
	name string
	// uuid is the SMBIOS UUID, empty if none is stated.
	uuid string
	tags []string
}

// parseConfig reads lines "key: value" up to the first section: what follows there are snapshots. As in Proxmox the
// last line of a key counts. It never fails: what is not understood is not taken.
func parseConfig(text []byte) guestConfig {
	var config guestConfig
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			break
		}
		key, value, found := strings.Cut(line, ":")
		if !found {
			continue
		}
		value = strings.TrimSpace(value)
		switch key {
		case "name", "hostname":
			config.name = value
		case "smbios1":
			config.uuid = smbiosUUID(value)
		case "tags":
			config.tags = parseTags(value)
		}
	}
	return config
}

// smbiosUUID finds uuid= in a list such as "uuid=…,manufacturer=…".
func smbiosUUID(value string) string {
	for setting := range strings.SplitSeq(value, ",") {
		key, uuid, _ := strings.Cut(strings.TrimSpace(setting), "=")
		if key == "uuid" && uuidPattern.MatchString(uuid) {
			return strings.ToLower(uuid)
		}
	}
	return ""
}

// parseTags splits at semicolons, commas and spaces, all of which Proxmox has used.
func parseTags(value string) []string {
	var tags []string
	for _, tag := range strings.FieldsFunc(value, func(r rune) bool { return r == ';' || r == ',' || r == ' ' || r == '\t' }) {
		if !slices.Contains(tags, tag) {
			tags = append(tags, tag)
		}
	}
	return tags
}
