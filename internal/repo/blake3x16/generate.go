//go:build ignore

// Command generate writes the assembly to a file, blocks_amd64.s if none is named. The compression is the same few instructions some four hundred times with other
// registers, which a program gets right where a person does not.
package main

import (
	"bytes"
	"fmt"
	"log"
	"os"
)

// permutation of the message's words from one round to the next, by the BLAKE3 specification.
var permutation = [16]int{2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8}

// iv are the first four words of the initialization vector, as they stand in the third row of the state.
var iv = [4]uint32{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a}

var out bytes.Buffer

func emit(format string, arguments ...any) { fmt.Fprintf(&out, format+"\n", arguments...) }

// word i of the state is in register i, word i of the message in register message[i].
func compress(message [16]int) {
	for range 7 {
		mix([4][4]int{{0, 4, 8, 12}, {1, 5, 9, 13}, {2, 6, 10, 14}, {3, 7, 11, 15}}, message[:8])
		mix([4][4]int{{0, 5, 10, 15}, {1, 6, 11, 12}, {2, 7, 8, 13}, {3, 4, 9, 14}}, message[8:])
		var next [16]int
		for i, from := range permutation {
			next[i] = message[from]
		}
		message = next
	}
	for i := range 8 {
		emit("\tVPXORD Z%d, Z%d, Z%d", i+8, i, i)
	}
}

// mix does the quarter rounds of four columns or diagonals side by side: they do not wait for each other.
func mix(quarters [4][4]int, message []int) {
	half := func(word, turnD, turnB int) {
		for i, q := range quarters {
			emit("\tVPADDD Z%d, Z%d, Z%d", message[2*i+word], q[0], q[0])
		}
		add(quarters, 1, 0)
		turn(quarters, 0, 3, turnD)
		add(quarters, 3, 2)
		turn(quarters, 2, 1, turnB)
	}
	half(0, 16, 12)
	half(1, 8, 7)
}

func add(quarters [4][4]int, from, to int) {
	for _, q := range quarters {
		emit("\tVPADDD Z%d, Z%d, Z%d", q[from], q[to], q[to])
	}
}

func turn(quarters [4][4]int, from, to, bits int) {
	for _, q := range quarters {
		emit("\tVPXORD Z%d, Z%d, Z%d", q[from], q[to], q[to])
	}
	for _, q := range quarters {
		emit("\tVPRORD $%d, Z%d, Z%d", bits, q[to], q[to])
	}
}

// thirdRow puts the initialization vector into words 8 to 11 of the state.
func thirdRow() {
	for i := range iv {
		emit("\tVPBROADCASTD iv<>+%d(SB), Z%d", 4*i, 8+i)
	}
}

// transpose makes 16 columns of the 16 rows in Z16 to Z31. It returns where each column is, and uses Z8 to Z15.
func transpose() [16]int {
	rows := [16]int{}
	for i := range rows {
		rows[i] = 16 + i
	}
	free := []int{8, 9, 10, 11, 12, 13, 14, 15}
	// pair replaces two registers by what two instructions make of them.
	pair := func(low, high string, a, b *int) {
		first := free[0]
		emit("\t%s Z%d, Z%d, Z%d", low, *b, *a, first)
		emit("\t%s Z%d, Z%d, Z%d", high, *b, *a, *b)
		free = append(free[1:], *a)
		*a = first
	}
	for i := 0; i < 16; i += 2 { // words of two rows side by side
		pair("VPUNPCKLDQ", "VPUNPCKHDQ", &rows[i], &rows[i+1])
	}
	for i := 0; i < 16; i += 4 { // of four: then rows[i..i+3] have columns 0, 2, 1, 3 of each four
		pair("VPUNPCKLQDQ", "VPUNPCKHQDQ", &rows[i], &rows[i+2])
		pair("VPUNPCKLQDQ", "VPUNPCKHQDQ", &rows[i+1], &rows[i+3])
	}
	for i := range 4 { // quarters of registers: of rows 0 and 4, and of rows 8 and 12
		pair("VSHUFI32X4 $0x88,", "VSHUFI32X4 $0xdd,", &rows[i], &rows[4+i])
		pair("VSHUFI32X4 $0x88,", "VSHUFI32X4 $0xdd,", &rows[8+i], &rows[12+i])
		pair("VSHUFI32X4 $0x88,", "VSHUFI32X4 $0xdd,", &rows[i], &rows[8+i])
		pair("VSHUFI32X4 $0x88,", "VSHUFI32X4 $0xdd,", &rows[4+i], &rows[12+i])
	}
	var columns [16]int
	for i, column := range [4]int{0, 2, 1, 3} {
		columns[column], columns[4+column] = rows[i], rows[4+i]
		columns[8+column], columns[12+column] = rows[8+i], rows[12+i]
	}
	return columns
}

// align moves columns to Z16 to Z31 in any order, so that Z8 to Z15 are free.
func align(columns [16]int) [16]int {
	used := map[int]bool{}
	for _, register := range columns {
		used[register] = true
	}
	free := 16
	for i, register := range columns {
		if register >= 16 {
			continue
		}
		for used[free] {
			free++
		}
		emit("\tVMOVDQA32 Z%d, Z%d", register, free)
		used[free], columns[i] = true, free
	}
	return columns
}

func blocks() {
	emit("// func blocks(s *lanes, offset, count uintptr)")
	emit("TEXT ·blocks(SB), NOSPLIT, $0-24")
	emit("\tMOVQ s+0(FP), DI")
	emit("\tMOVQ offset+8(FP), SI")
	emit("\tMOVQ count+16(FP), CX")
	for i := range 8 {
		emit("\tVMOVDQU32 %d(DI), Z%d", 64*i, i)
	}
	emit("next:")
	for i := range 16 {
		emit("\tMOVQ %d(DI), AX", 768+8*i)
		emit("\tVMOVDQU32 (AX)(SI*1), Z%d", 16+i)
	}
	message := align(transpose())
	thirdRow()
	for i := range 4 { // counter, low and high, length, flags
		emit("\tVMOVDQU32 %d(DI), Z%d", 512+64*i, 12+i)
	}
	compress(message)
	emit("\tADDQ $64, SI")
	emit("\tDECQ CX")
	emit("\tJNZ next")
	for i := range 8 {
		emit("\tVMOVDQU32 Z%d, %d(DI)", i, 64*i)
	}
	emit("\tVZEROUPPER")
	emit("\tRET\n")
}

func parents() {
	emit("// func parents(to, children *uint32, key *Key, flags uint32)")
	emit("TEXT ·parents(SB), NOSPLIT, $0-28")
	emit("\tMOVQ to+0(FP), DI")
	emit("\tMOVQ children+8(FP), SI")
	emit("\tMOVQ key+16(FP), DX")
	emit("\tVMOVDQU32 even<>+0(SB), Z8")
	emit("\tVMOVDQU32 odd<>+0(SB), Z9")
	var message [16]int
	for i := range 8 {
		row := rowBytes * i
		emit("\tVMOVDQU32 %d(SI), Z%d", row, 16+i)
		emit("\tVMOVDQU32 %d(SI), Z10", row+64)
		emit("\tVMOVDQA32 Z%d, Z%d", 16+i, 24+i)
		emit("\tVPERMT2D Z10, Z8, Z%d", 16+i)
		emit("\tVPERMT2D Z10, Z9, Z%d", 24+i)
		message[i], message[8+i] = 16+i, 24+i
		emit("\tVPBROADCASTD %d(DX), Z%d", 4*i, i)
	}
	thirdRow()
	emit("\tVPXORD Z12, Z12, Z12")
	emit("\tVPXORD Z13, Z13, Z13")
	emit("\tMOVL $64, AX")
	emit("\tVPBROADCASTD AX, Z14")
	emit("\tMOVL flags+24(FP), AX")
	emit("\tVPBROADCASTD AX, Z15")
	compress(message)
	for i := range 8 {
		emit("\tVMOVDQU32 Z%d, %d(DI)", i, rowBytes*i)
	}
	emit("\tVZEROUPPER")
	emit("\tRET\n")
}

// rowBytes is the distance of a chaining value's words in a table of them.
const rowBytes = 4 * 160

func table(name string, words []uint32) {
	for i, word := range words {
		emit("DATA %s<>+%d(SB)/4, $0x%08x", name, 4*i, word)
	}
	emit("GLOBL %s<>(SB), RODATA|NOPTR, $%d\n", name, 4*len(words))
}

func main() {
	emit("// Code generated by generate.go. DO NOT EDIT.\n\n#include \"textflag.h\"\n")
	table("iv", iv[:])
	var even, odd [16]uint32
	for i := range even {
		even[i], odd[i] = uint32(2*i), uint32(2*i+1)
	}
	table("even", even[:])
	table("odd", odd[:])
	blocks()
	parents()
	name := "blocks_amd64.s"
	if len(os.Args) > 1 {
		name = os.Args[1]
	}
	if err := os.WriteFile(name, append(bytes.TrimRight(out.Bytes(), "\n"), '\n'), 0o644); err != nil {
		log.Fatal(err)
	}
}
