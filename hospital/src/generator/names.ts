/** The thirty local government areas of Osun State (Constitution of Nigeria, 1999, First Schedule). */
export const LGAS = list(`
  Aiyedaade, Aiyedire, Atakunmosa East, Atakunmosa West, Boluwaduro, Boripe, Ede North, Ede South, Egbedore, Ejigbo, Ife Central, Ife East, Ife North,
  Ife South, Ifedayo, Ifelodun, Ila, Ilesa East, Ilesa West, Irepodun, Irewole, Isokan, Iwo, Obokun, Odo Otin, Ola Oluwa, Olorunda, Oriade, Orolu, Osogbo`)

/** Where the big hospitals are. */
export const TOWNS = list('Osogbo, Ife Central, Ilesa West, Ede North, Iwo, Ejigbo, Ila, Ilesa East, Olorunda')

/** Mostly Yoruba; some Igbo, Hausa and others, as in any town of the south-west. Some with their tone marks and dots, as people write them. */
export const FAMILIES = list(`
  Adeyemi, Adebayo, Ojo, Ogunleye, Olaniyan, Oyedele, Akinwale, Adeleke, Oyetola, Ajayi, Babatunde, Fashola, Ogundipe, Oladipo, Adewale, Afolabi, Akande,
  Alabi, Aremu, Ayinde, Bamidele, Dada, Ebenezer, Fadipe, Falade, Famuyiwa, Gbadamosi, Idowu, Ige, Ishola, Jimoh, Kolawole, Lawal, Makinde, Odunsi,
  Ogunbiyi, Ogunsola, Okunola, Olatunji, Olawale, Olowookere, Omotayo, Oni, Oseni, Owolabi, Oyebanji, Popoola, Raji, Salami, Sanusi, Shittu, Sowande,
  Taiwo, Adégbọlá, Ọláìyá, Ògúnbánjọ, Okafor, Okonkwo, Nwosu, Eze, Chukwu, Bello, Musa, Ibrahim, Abubakar, Effiong, Ma'aji, Akpan-Udo`)

export const GIVEN = {
  male: list(`
    Adebayo, Akin, Ayodele, Babajide, Bolaji, Damilola, Dare, Ebun, Femi, Gbenga, Ibrahim, Idris, Jide, Kayode, Kehinde, Kunle, Lekan, Mufutau, Niyi,
    Oluwaseun, Rasheed, Segun, Sunday, Taiwo, Tunde, Wale, Yusuf, Ọlátúndé, Ṣẹ́gun, Chinedu, Emeka, Usman, Sani`),
  female: list(`
    Abimbola, Adunni, Aisha, Ajoke, Amope, Ayoka, Bisi, Bukola, Damilola, Ebunoluwa, Fatima, Folake, Funmilayo, Ganiyat, Idowu, Iyabo, Kehinde, Kudirat,
    Labake, Morenike, Mojisola, Ngozi, Omolara, Ronke, Sade, Simisola, Taiwo, Temitope, Titilayo, Yetunde, Ọmọ́tárá, Chioma, Hauwa`),
} as const

/** Villages and quarters that health centres are called after. */
export const QUARTERS = list(`
  Oke-Baale, Isale-Osun, Ataoja, Oke-Fia, Ayetoro, Oke-Ola, Sabo, Ereguru, Balogun, Isale-Agbara, Oja-Oba, Idi-Omo, Araromi, Testing Ground, Alekuwodo,
  Ogo-Oluwa, Oke-Ijetu, Agunbelewo, Dada Estate, Egbeda`)

function list(text: string): readonly string[] {
  return text.split(',').map((each) => each.trim())
}
