import type { TestName } from './codes.ts'

// Why people in Osun State come to hospital, what is measured then, and what they are given.

export interface Medicine {
  /** The formulary's. */
  readonly code: string
  /** Nonproprietary name, strength and form. */
  readonly name: string
  readonly dosage: string
  readonly priceNaira: number
}

const MEDICINE = {
  artemetherLumefantrine: {
    code: 'artemether-lumefantrine-20-120-tab',
    name: 'Artemether 20 mg / lumefantrine 120 mg tablets',
    dosage: '4 tablets twice daily for 3 days',
    priceNaira: 1800,
  },
  artesunate: {
    code: 'artesunate-60-inj',
    name: 'Artesunate 60 mg injection',
    dosage: '2.4 mg/kg at 0, 12 and 24 hours',
    priceNaira: 4200,
  },
  paracetamol: {
    code: 'paracetamol-500-tab',
    name: 'Paracetamol 500 mg tablets',
    dosage: '2 tablets three times daily',
    priceNaira: 400,
  },
  amoxicillin: {
    code: 'amoxicillin-500-cap',
    name: 'Amoxicillin 500 mg capsules',
    dosage: '1 capsule three times daily for 7 days',
    priceNaira: 2100,
  },
  ciprofloxacin: {
    code: 'ciprofloxacin-500-tab',
    name: 'Ciprofloxacin 500 mg tablets',
    dosage: '1 tablet twice daily for 7 days',
    priceNaira: 2600,
  },
  ceftriaxone: {
    code: 'ceftriaxone-1g-inj',
    name: 'Ceftriaxone 1 g injection',
    dosage: '1 g intravenously once daily',
    priceNaira: 3500,
  },
  rehydration: {
    code: 'oral-rehydration-salts',
    name: 'Oral rehydration salts',
    dosage: '1 sachet in 1 litre of water after each loose stool',
    priceNaira: 300,
  },
  zinc: {
    code: 'zinc-20-tab',
    name: 'Zinc sulfate 20 mg dispersible tablets',
    dosage: '1 tablet once daily for 10 days',
    priceNaira: 500,
  },
  amlodipine: {
    code: 'amlodipine-5-tab',
    name: 'Amlodipine 5 mg tablets',
    dosage: '1 tablet once daily',
    priceNaira: 1500,
  },
  lisinopril: {
    code: 'lisinopril-10-tab',
    name: 'Lisinopril 10 mg tablets',
    dosage: '1 tablet once daily',
    priceNaira: 1900,
  },
  metformin: {
    code: 'metformin-500-tab',
    name: 'Metformin 500 mg tablets',
    dosage: '1 tablet twice daily with meals',
    priceNaira: 1700,
  },
  folicAcid: {
    code: 'folic-acid-5-tab',
    name: 'Folic acid 5 mg tablets',
    dosage: '1 tablet once daily',
    priceNaira: 350,
  },
  ferrousSulfate: {
    code: 'ferrous-sulfate-200-tab',
    name: 'Ferrous sulfate 200 mg tablets',
    dosage: '1 tablet twice daily',
    priceNaira: 450,
  },
  oxytocin: {
    code: 'oxytocin-10-inj',
    name: 'Oxytocin 10 IU injection',
    dosage: '10 IU intramuscularly after delivery',
    priceNaira: 1200,
  },
  omeprazole: {
    code: 'omeprazole-20-cap',
    name: 'Omeprazole 20 mg capsules',
    dosage: '1 capsule once daily before breakfast',
    priceNaira: 1400,
  },
  ibuprofen: {
    code: 'ibuprofen-400-tab',
    name: 'Ibuprofen 400 mg tablets',
    dosage: '1 tablet three times daily after meals',
    priceNaira: 700,
  },
  salbutamol: {
    code: 'salbutamol-100-inhaler',
    name: 'Salbutamol 100 microgram inhaler',
    dosage: '2 puffs when needed',
    priceNaira: 4800,
  },
} as const satisfies Record<string, Medicine>

export interface Condition {
  /** ICD-10. */
  readonly code: string
  readonly display: string
  /** How often, against the others. */
  readonly weight: number
  readonly tests: readonly TestName[]
  /** Tests that show it, and by how much they leave the middle of what is normal (1 is the end of the range). */
  readonly shows: Readonly<Partial<Record<TestName, number>>>
  readonly medicines: readonly Medicine[]
  /** Of those who come with it, how many are emergencies and how many are admitted. */
  readonly emergency: number
  readonly admitted: number
  /** Years of age, and one sex alone where it is so. */
  readonly ages?: readonly [number, number]
  readonly sex?: 'male' | 'female'
}

const BLOOD = ['hemoglobin', 'hematocrit', 'leukocytes', 'platelets'] as const

export const CONDITIONS: readonly Condition[] = [
  {
    code: 'B50.9',
    display: 'Plasmodium falciparum malaria, unspecified',
    weight: 26,
    tests: BLOOD,
    shows: { hemoglobin: -1.4, hematocrit: -1.4, platelets: -1.3 },
    medicines: [MEDICINE.artemetherLumefantrine, MEDICINE.paracetamol],
    emergency: 0.12,
    admitted: 0.05,
  },
  {
    code: 'B50.0',
    display: 'Plasmodium falciparum malaria with cerebral complications',
    weight: 1,
    tests: [...BLOOD, 'glucose', 'creatinine'],
    shows: { hemoglobin: -2.2, hematocrit: -2.2, platelets: -2, glucose: -1.4 },
    medicines: [MEDICINE.artesunate, MEDICINE.paracetamol],
    emergency: 0.3,
    admitted: 0.7,
  },
  {
    code: 'A01.0',
    display: 'Typhoid fever',
    weight: 7,
    tests: ['leukocytes', 'platelets', 'alt'],
    shows: { leukocytes: -1.2, alt: 1.3 },
    medicines: [MEDICINE.ciprofloxacin, MEDICINE.paracetamol],
    emergency: 0.08,
    admitted: 0.08,
  },
  {
    code: 'J06.9',
    display: 'Acute upper respiratory infection, unspecified',
    weight: 14,
    tests: [],
    shows: {},
    medicines: [MEDICINE.paracetamol],
    emergency: 0.05,
    admitted: 0,
  },
  {
    code: 'J18.9',
    display: 'Pneumonia, unspecified organism',
    weight: 4,
    tests: ['leukocytes', 'crp'],
    shows: { leukocytes: 1.6, crp: 4 },
    medicines: [MEDICINE.amoxicillin, MEDICINE.ceftriaxone],
    emergency: 0.2,
    admitted: 0.3,
  },
  {
    code: 'A09.9',
    display: 'Gastroenteritis and colitis of unspecified origin',
    weight: 8,
    tests: ['sodium', 'potassium'],
    shows: { sodium: -1.1, potassium: -1.1 },
    medicines: [MEDICINE.rehydration, MEDICINE.zinc],
    emergency: 0.25,
    admitted: 0.06,
  },
  {
    code: 'I10',
    display: 'Essential (primary) hypertension',
    weight: 13,
    tests: ['creatinine', 'potassium', 'cholesterol'],
    shows: { cholesterol: 1.1 },
    medicines: [MEDICINE.amlodipine, MEDICINE.lisinopril],
    emergency: 0.05,
    admitted: 0.03,
    ages: [30, 110],
  },
  {
    code: 'E11.9',
    display: 'Type 2 diabetes mellitus without complications',
    weight: 6,
    tests: ['glucose', 'hba1c', 'creatinine'],
    shows: { glucose: 2.6, hba1c: 3 },
    medicines: [MEDICINE.metformin],
    emergency: 0.04,
    admitted: 0.05,
    ages: [30, 110],
  },
  {
    code: 'D57.0',
    display: 'Sickle-cell anaemia with crisis',
    weight: 2,
    tests: [...BLOOD, 'bilirubin'],
    shows: { hemoglobin: -3, hematocrit: -3, leukocytes: 1.4, bilirubin: 2.2 },
    medicines: [MEDICINE.folicAcid, MEDICINE.ibuprofen],
    emergency: 0.4,
    admitted: 0.4,
    ages: [1, 45],
  },
  {
    code: 'Z34.9',
    display: 'Supervision of normal pregnancy, unspecified',
    weight: 9,
    tests: ['hemoglobin', 'glucose'],
    shows: { hemoglobin: -0.8 },
    medicines: [MEDICINE.folicAcid, MEDICINE.ferrousSulfate],
    emergency: 0,
    admitted: 0,
    ages: [16, 46],
    sex: 'female',
  },
  {
    code: 'O80.0',
    display: 'Spontaneous vertex delivery',
    weight: 4,
    tests: ['hemoglobin'],
    shows: { hemoglobin: -1.1 },
    medicines: [MEDICINE.oxytocin, MEDICINE.ferrousSulfate],
    emergency: 0,
    admitted: 1,
    ages: [16, 46],
    sex: 'female',
  },
  {
    code: 'N39.0',
    display: 'Urinary tract infection, site not specified',
    weight: 5,
    tests: ['leukocytes', 'creatinine', 'ureaNitrogen'],
    shows: { leukocytes: 1.2 },
    medicines: [MEDICINE.ciprofloxacin],
    emergency: 0.05,
    admitted: 0.03,
    ages: [5, 110],
  },
  {
    code: 'K29.7',
    display: 'Gastritis, unspecified',
    weight: 5,
    tests: ['hemoglobin'],
    shows: {},
    medicines: [MEDICINE.omeprazole],
    emergency: 0.05,
    admitted: 0.01,
    ages: [12, 110],
  },
  {
    code: 'J45.9',
    display: 'Asthma, unspecified',
    weight: 3,
    tests: [],
    shows: {},
    medicines: [MEDICINE.salbutamol],
    emergency: 0.35,
    admitted: 0.08,
  },
  {
    code: 'T14.9',
    display: 'Injury, unspecified',
    weight: 4,
    tests: ['hemoglobin'],
    shows: { hemoglobin: -0.9 },
    medicines: [MEDICINE.ibuprofen, MEDICINE.paracetamol],
    emergency: 0.7,
    admitted: 0.12,
  },
  {
    code: 'K35.8',
    display: 'Acute appendicitis, other and unspecified',
    weight: 1,
    tests: ['leukocytes', 'crp', 'hemoglobin'],
    shows: { leukocytes: 1.8, crp: 5 },
    medicines: [MEDICINE.ceftriaxone, MEDICINE.paracetamol],
    emergency: 0.1,
    admitted: 0.9,
    ages: [5, 70],
  },
]

/** What the hospital charges for beside medicines, in naira. */
export const TARIFF = {
  consultation: { code: 'consultation', display: 'Consultation', priceNaira: 2500 },
  emergencyCare: { code: 'emergency-care', display: 'Emergency care', priceNaira: 7500 },
  bedDay: { code: 'bed-day', display: 'Bed day, general ward', priceNaira: 6000 },
  laboratoryTest: { code: 'laboratory-test', display: 'Laboratory test', priceNaira: 1500 },
} as const
